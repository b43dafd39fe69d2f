"""The shells' side of completion: the scripts for bash, zsh and fish, and what they are told.

click's own scripts take for a whole word what is a piece of one: bash cuts words at ``:`` and ``=`` (``main:app``,
``--loop=u``). They lose the ``--loop=`` of such a word in zsh and fish, and put a space behind ``workers.count=``.
How a shell asks stays as click documents it (``_ASGIRI_COMPLETE=bash_complete COMP_WORDS=... COMP_CWORD=... asgiri``).
"""

from __future__ import annotations

import os
from typing import Final

from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ZshComplete,
    add_completion_class,
    split_arg_string,
)

# The line up to the cursor tells what bash's words do not: what stands together.
_BASH: Final = """\
%(complete_func)s() {
    local type value
    COMPREPLY=()
    while IFS=, read -r type value; do
        case $type in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            plain)
                [[ $value == *[[:space:]]* && ${COMP_WORDS[COMP_CWORD]} != [\\'\\"]* ]] && printf -v value %%q "$value"
                COMPREPLY+=("$value")
                [[ $value == *[:=./] ]] && compopt -o nospace
                ;;
        esac
    done < <(COMP_LINE="${COMP_LINE:0:COMP_POINT}" COMP_WORDBREAKS="$COMP_WORDBREAKS" \\
        %(complete_var)s=bash_complete "$1" 2>/dev/null)
}

complete -o nosort -F %(complete_func)s %(prog_name)s
"""

_ZSH: Final = """\
#compdef %(prog_name)s

%(complete_func)s() {
    local type value help
    local -a plain plain_open described described_open
    (( $+commands[%(prog_name)s] )) || return 1
    [[ $PREFIX == --*=* ]] && compset -P 1 '*='
    while IFS= read -r type && IFS= read -r value && IFS= read -r help; do
        case $type in
            dir) _path_files -/ ;;
            file) _path_files -f ;;
            plain)
                if [[ $help == _ && $value == *[:=./] ]]; then plain_open+=("$value")
                elif [[ $help == _ ]]; then plain+=("$value")
                elif [[ $value == *[:=./] ]]; then described_open+=("${value//:/\\:}:$help")
                else described+=("${value//:/\\:}:$help")
                fi
                ;;
        esac
    done < <(COMP_WORDS="${words[*]}" COMP_CWORD=$((CURRENT - 1)) \\
        %(complete_var)s=zsh_complete %(prog_name)s 2>/dev/null)
    (( $#described )) && _describe -V unsorted described
    (( $#described_open )) && _describe -V unsorted described_open -S ''
    (( $#plain_open )) && compadd -V unsorted -S '' -a plain_open
    (( $#plain )) && compadd -V unsorted -a plain
    return 0
}

if [[ $funcstack[1] == _%(prog_name)s ]]; then  # as a file of $fpath this is the function, at each call
    %(complete_func)s "$@"
else
    compdef %(complete_func)s %(prog_name)s
fi
"""

_FISH: Final = """\
function %(complete_func)s
    set -l response (env %(complete_var)s=fish_complete COMP_WORDS=(commandline -cp) \\
        COMP_CWORD=(commandline -ct) %(prog_name)s 2>/dev/null)
    for completion in $response
        set -l found (string split -m 1 , -- $completion)
        set -l flag (string match -r '^--[^=]*=' -- $found[2])
        set -l path (string replace -- "$flag" '' $found[2])
        switch $found[1]
            case dir
                printf '%%s\\n' "$flag"(__fish_complete_directories $path)
            case file
                printf '%%s\\n' "$flag"(__fish_complete_path $path)
            case plain
                echo -- $found[2]
        end
    end
end

complete --no-files --command %(prog_name)s --arguments "(%(complete_func)s)"
"""


def _flag_before(word: str) -> str:
    """The flag that stands before its value in one word (``--loop=``), which click takes off; empty where none does."""
    name, equals, _ = word.partition("=")
    return name + equals if equals and name.startswith("-") else ""


class Bash(BashComplete):
    """bash replaces only what stands behind the last of its word breaks: that is what it is told."""

    source_template = _BASH
    _flag = ""
    _kept = ""

    def get_completion_args(self) -> tuple[list[str], str]:
        line = os.environ.get("COMP_LINE")
        if line is None:
            args, word = super().get_completion_args()
        else:
            *words, word = split_arg_string(line + "x")  # a word that is there, even where none is begun
            args, word = words[1:], word[:-1]
            self._flag = _flag_before(word)
            self._kept = _kept(line, word, os.environ.get("COMP_WORDBREAKS", ""))
        return args, word

    def format_completion(self, item: CompletionItem[str]) -> str:
        value = (self._flag + str(item.value)).removeprefix(self._kept) if item.type == "plain" else item.value
        return f"{item.type},{value}"


def _kept(line: str, word: str, breaks: str) -> str:
    """The part of the last word of ``line`` that bash leaves as it is."""
    for quote in ('"', "'"):
        if line.count(quote) % 2:  # an open one: bash's word begins behind it
            return word.removesuffix(line.rpartition(quote)[2])
    end = max((word.rfind(mark) for mark in ":=" if mark in breaks), default=-1)
    return word[: end + 1]


class Zsh(ZshComplete):
    """zsh's script escapes what it has to, and keeps a flag before its value by itself."""

    source_template = _ZSH

    def format_completion(self, item: CompletionItem[str]) -> str:
        return f"{item.type}\n{item.value}\n{item.help or '_'}"


class Fish(FishComplete):
    """fish replaces the whole word, a flag before its value included."""

    source_template = _FISH
    _flag = ""

    def get_completion_args(self) -> tuple[list[str], str]:
        args, word = super().get_completion_args()
        self._flag = _flag_before(word)
        return args, word

    def format_completion(self, item: CompletionItem[str]) -> str:
        help_ = f"\t{item.help}" if item.help else ""
        return f"{item.type},{self._flag}{item.value}{help_}"


def prepare() -> None:
    """Have click use these. Only when a shell asks: a start has no need of it."""
    for shell in (Bash, Zsh, Fish):
        add_completion_class(shell)
