"""Applications that load, and the one sentence for each of those that do not. The modules are real files."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING

import pytest

from asgiri.errors import AppError, ExitCode
from asgiri.loader import load_app
from asgiri.tracebacks import describe, has_user_frames, user_traceback

if TYPE_CHECKING:
    from types import ModuleType

Write = Callable[[str, str], Path]

ASGI3 = """\
async def app(scope, receive, send):
    pass
"""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Writes source files below tmp_path; what is imported from there is forgotten afterwards."""
    path = list(sys.path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write(name: str, source: str) -> Path:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(dedent(source), "utf-8")
        return file

    yield write
    sys.path[:] = path
    for name in [name for name, module in sys.modules.items() if is_below(tmp_path, module)]:
        del sys.modules[name]
    for name in [name for name in sys.path_importer_cache if name.startswith(str(tmp_path))]:
        del sys.path_importer_cache[name]


def is_below(directory: Path, module: ModuleType) -> bool:
    places = [getattr(module, "__file__", None), *getattr(module, "__path__", ())]
    return any(str(place).startswith(str(directory)) for place in places)


def refusal(target: str, *, app_dir: str = ".", factory: bool = False, interface: str = "auto") -> AppError:
    with pytest.raises(AppError) as caught:
        load_app(target, app_dir=app_dir, factory=factory, interface=interface)
    assert caught.value.exit_code is ExitCode.APP
    assert "\n" not in str(caught.value)
    for foreign in ("asgiri/loader.py", "<frozen", "/importlib/", "contextlib"):
        assert foreign not in caught.value.trace
    return caught.value


# What loads

GOOD = {
    "function": ASGI3,
    "instance": """
        class App:
            async def __call__(self, scope, receive, send): ...
        app = App()
    """,
    "bound method": """
        class App:
            async def serve(self, scope, receive, send): ...
        app = App().serve
    """,
    "partial": """
        from functools import partial
        async def serve(settings, scope, receive, send): ...
        app = partial(serve, {})
    """,
    "sync callable that returns an awaitable": """
        def app(scope, receive, send): ...
    """,
    "class that is awaited": """
        class app:
            def __init__(self, scope, receive, send): ...
            def __await__(self): yield
    """,
    "decorated with any arguments": """
        import functools
        async def inner(scope): ...
        @functools.wraps(inner)
        async def app(*args, **kwargs): ...
    """,
    "callable that resists inspection": """
        class App:
            @property
            def __signature__(self): raise RuntimeError("no")
            def __call__(self, *args): ...
        app = App()
    """,
    "starlette": "from starlette.applications import Starlette\napp = Starlette()",
    "fastapi": "from fastapi import FastAPI\napp = FastAPI()",
}


@pytest.mark.parametrize("interface", ["auto", "asgi3"])
@pytest.mark.parametrize("source", GOOD.values(), ids=GOOD)
def test_an_asgi3_application_loads(write: Write, source: str, interface: str) -> None:
    write("good_app.py", source)
    assert load_app("good_app:app", interface=interface) is sys.modules["good_app"].app


def test_the_attribute_may_be_dotted_and_the_module_in_a_package(write: Write) -> None:
    write("pack_a/__init__.py", "")
    write("pack_a/web.py", ASGI3 + "class sites: main = app\n")
    assert callable(load_app("pack_a.web:sites.main"))


def test_a_factory_is_called_without_arguments(write: Write) -> None:
    write("fact_a.py", ASGI3 + "def create(debug=False): return app\n")
    assert load_app("fact_a:create", factory=True) is sys.modules["fact_a"].app


def test_app_dir_is_absolute_first_and_once_on_the_path(write: Write, tmp_path: Path) -> None:
    write("inner/path_a.py", ASGI3)
    sys.path.append(str(tmp_path / "inner"))
    for _ in range(2):
        load_app("path_a:app", app_dir="inner")
    assert sys.path[0] == str(tmp_path / "inner")
    assert sys.path.count(str(tmp_path / "inner")) == 1


def test_warnings_of_the_application_are_left_alone(write: Write) -> None:
    write("warn_a.py", "import warnings\nwarnings.warn('old', DeprecationWarning)\n" + ASGI3)
    with pytest.warns(DeprecationWarning, match="old"):
        load_app("warn_a:app")


def test_loading_works_in_a_fresh_interpreter(write: Write, tmp_path: Path) -> None:
    write("sub/fresh_app.py", "import sys\nprint(sys.path[0])\n" + ASGI3)
    code = "from asgiri.loader import load_app; print(load_app('fresh_app:app', app_dir='sub').__name__)"
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run(
        [sys.executable, "-Werror", "-c", code],
        env={"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert done.stdout.split() == [str(tmp_path / "sub"), "app"]


# How the target is written


@pytest.mark.parametrize("target", ["", ":", ":app", "main:", "main:.app", ".main:app", "a..b:app"])
def test_what_is_no_target_is_told_the_form(write: Write, target: str) -> None:
    assert "write module:attribute" in str(refusal(target))


@pytest.mark.parametrize(
    ("target", "right"),
    [
        ("main.py", "write main:app"),
        ("main.py:web", "write main:web"),
        ("./main.py:web", "write main:web"),
        ("src/pack/main:web", "write src.pack.main:web"),
        ("/srv/shop/main.py:app", "write main:app with --app-dir /srv/shop"),
        ("main:create()", "write main:create and add --factory"),
    ],
)
def test_a_target_that_is_nearly_right_is_corrected(write: Write, target: str, right: str) -> None:
    assert str(refusal(target)).endswith(right)


def test_a_target_without_an_attribute_is_told_what_the_module_offers(write: Write) -> None:
    write("offer_a.py", ASGI3 + "class C: ...\ndef make_app(): ...\nasync def job(): ...\n_app = app\n")
    error = refusal("offer_a")
    assert str(error) == ('"offer_a" names no attribute: write offer_a:app; it offers app, make_app (with --factory)')
    assert error.trace == ""


def test_a_target_without_an_attribute_is_offered_wsgi_and_asgi2_applications_too(write: Write) -> None:
    write(
        "offer_b.py",
        """
        def create_app(settings): ...
        def app_wsgi(environ, start_response): ...
        def app_asgi2(scope): ...
        def append(a, b): ...
        def wrap_app(app): ...
        """,
    )
    assert str(refusal("offer_b")).endswith("write offer_b:app_wsgi; it offers app_wsgi, app_asgi2")


# Modules that are not there


def test_a_missing_module_names_the_directories_and_a_similar_file(write: Write, tmp_path: Path) -> None:
    write("main_b.py", ASGI3)
    error = refusal("mian_b:app")
    assert str(error) == (
        f"module mian_b was not found: looked in {tmp_path} (app_dir, the current directory) "
        "and the installed packages; did you mean main_b?"
    )
    assert error.trace == ""


def test_a_missing_module_that_is_in_the_current_directory_names_app_dir(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("here_b.py", ASGI3)
    write("other/unlike.py", "")
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", str(tmp_path))])
    assert f"; it is in {tmp_path}: set --app-dir" in str(refusal("here_b:app", app_dir="other"))


def test_the_current_directory_is_named_when_it_was_looked_in(write: Write, tmp_path: Path) -> None:
    write("other/unlike.py", "")
    sys.path.append("")
    message = str(refusal("nowhere_b:app", app_dir="other"))
    assert f"looked in {tmp_path}/other (app_dir), {tmp_path} (the current directory) and" in message


def test_a_missing_module_below_src_names_app_dir(write: Write, tmp_path: Path) -> None:
    write("src/deep_b/__init__.py", "")
    assert f"; it is in {tmp_path}/src: set --app-dir" in str(refusal("deep_b:app"))


def test_a_missing_submodule_names_its_package(write: Write) -> None:
    file = write("pack_b/__init__.py", "")
    write("pack_b/Server.py", ASGI3)
    assert str(refusal("pack_b.servr:app")) == (
        f"module pack_b.servr was not found: package pack_b ({file}) has no module servr; did you mean pack_b.Server?"
    )


def test_a_dot_in_the_place_of_the_colon_is_told(write: Write) -> None:
    file = write("dot_b.py", ASGI3)
    assert str(refusal("dot_b.app")) == (
        f"module dot_b.app was not found: dot_b ({file}) is not a package; did you mean dot_b:app?"
    )


def test_app_dir_must_be_a_directory(write: Write, tmp_path: Path) -> None:
    assert str(refusal("main:app", app_dir="none")) == f'app_dir "{tmp_path}/none" is not a directory'


def test_a_current_directory_that_is_gone_is_told(write: Write, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(gone)
        gone.rmdir()
        assert 'app_dir "." cannot be found: FileNotFoundError' in str(refusal("main:app"))
        assert f"looked in {tmp_path} (app_dir) and" in str(refusal("no_b:app", app_dir=str(tmp_path)))


# Modules that fail


def test_a_missing_dependency_is_not_a_missing_module(write: Write) -> None:
    file = write("dep_c.py", "import no_such_dependency\n")
    error = refusal("dep_c:app")
    assert str(error) == (
        "module dep_c was found, but importing it failed: ModuleNotFoundError: No module named 'no_such_dependency'"
    )
    assert error.trace == (
        "Traceback (most recent call last):\n"
        f'  File "{file}", line 1, in <module>\n'
        "    import no_such_dependency\n"
        "ModuleNotFoundError: No module named 'no_such_dependency'\n"
    )


def test_a_package_that_misses_its_own_module_is_found(write: Write) -> None:
    write("own_c/__init__.py", "import own_c.web\n")
    assert "module own_c.web was found, but importing it failed" in str(refusal("own_c.web:app"))


def test_a_syntax_error_names_file_and_line(write: Write) -> None:
    file = write("syn_c.py", "x = 1\ndef broken(:\n    pass\n")
    error = refusal("syn_c:app")
    assert f"importing it failed: {file}:2: SyntaxError: " in str(error)
    assert f'File "{file}", line 2' in error.trace
    assert "def broken(:" in error.trace


@pytest.mark.parametrize(("call", "told"), [("sys.exit(3)", "sys.exit(3)"), ("sys.exit()", "sys.exit()")])
def test_an_exit_at_import_is_an_error_of_the_app(write: Write, call: str, told: str) -> None:
    write("exit_c.py", f"import sys\n{call}\n")
    error = refusal("exit_c:app")
    assert str(error) == f"module exit_c was found, but importing it called {told}"
    assert call in error.trace


def test_an_interrupt_at_import_passes(write: Write) -> None:
    write("intr_c.py", "raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        load_app("intr_c:app")


def test_causes_are_shown_without_foreign_frames(write: Write) -> None:
    write("low_c.py", "import importlib\nimportlib.import_module('no_such_driver')\n")
    write("top_c.py", "try:\n    import low_c\nexcept ImportError as e:\n    raise OSError('no db') from e\n")
    error = refusal("top_c:app")
    assert str(error).endswith("importing it failed: OSError: no db")
    assert error.trace.count("File ") == 3
    assert "No module named 'no_such_driver'" in error.trace
    assert "direct cause" in error.trace


# Attributes


def test_a_missing_attribute_names_the_module_and_its_offer(write: Write) -> None:
    file = write("attr_d.py", ASGI3)
    error = refusal("attr_d:ap")
    assert str(error) == f'module attr_d ({file}) has no attribute "ap"; it offers app'
    assert error.trace == ""


def test_a_module_with_nothing_to_offer_says_so(write: Write, tmp_path: Path) -> None:
    (tmp_path / "space_d").mkdir()
    assert str(refusal("space_d:app")) == (
        f'module space_d ({tmp_path}/space_d) has no attribute "app"; nothing in it looks like an application'
    )


def test_a_missing_attribute_of_an_object_names_the_object(write: Write) -> None:
    write("obj_d.py", ASGI3)
    assert str(refusal("obj_d:app.web")) == 'obj_d:app (function) has no attribute "web"'


def test_an_attribute_that_fails_while_it_is_read_shows_where(write: Write) -> None:
    write(
        "prop_d.py",
        """
        class Site:
            @property
            def app(self): return self.nothing
        site = Site()
        """,
    )
    error = refusal("prop_d:site.app")
    assert "reading app of prop_d:site failed: AttributeError: " in str(error)
    assert "return self.nothing" in error.trace


# What is not ASGI 3, but can be served as it

OTHERS = {
    "def app(environ, start_response): ...": "wsgi",
    "class app:\n def __init__(self, environ, start): ...\n def __iter__(self): yield b''": "wsgi",
    "class Site:\n def __call__(self, environ, start_response): ...\napp = Site()": "wsgi",
    "def app(scope): ...": "asgi2",
    "class A:\n def __call__(self, scope): ...\napp = A()": "asgi2",
    "class B:\n def __call__(self, receive, send): ...\nclass app(B):\n def __init__(self, scope): ...": "asgi2",
}


@pytest.mark.parametrize("named", [False, True], ids=["found", "named"])
@pytest.mark.parametrize(("source", "interface"), OTHERS.items(), ids=OTHERS)
def test_other_interfaces_load_wrapped(
    write: Write, source: str, interface: str, named: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "asgiri")
    write("other_e.py", source)
    wrapped = load_app("other_e:app", interface=interface if named else "auto")
    assert type(wrapped).__name__ == {"wsgi": "WsgiApplication", "asgi2": "Asgi2Application"}[interface]
    assert len(caplog.messages) == (0 if named else 1)
    assert all(line.startswith("other_e:app looks like a") and interface in line for line in caplog.messages)


def test_a_factory_may_make_a_wsgi_application(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "asgiri")
    write("other_f.py", "def make(): return lambda env, start: 0")
    assert type(load_app("other_f:make", factory=True)).__name__ == "WsgiApplication"
    assert caplog.messages[0].startswith("what the factory other_f:make returned looks like a WSGI application")


@pytest.mark.parametrize(
    ("source", "interface", "told"),
    [
        (ASGI3, "wsgi", "cannot be called with (environ, start_response), as interface: wsgi wants; it looks like an"),
        ("def app(): ...", "wsgi", "is a function that takes no arguments: if calling it makes the application, add"),
        ("def app(environ, start_response): ...", "asgi3", "cannot be called with (scope, receive, send), as interf"),
        ("app = []", "asgi2", "is a list, not an application: it cannot be called"),
        (ASGI3, "asgi4", ""),
    ],
)
def test_an_interface_that_does_not_fit_is_refused(write: Write, source: str, interface: str, told: str) -> None:
    write("wrong_e.py", source)
    message = str(refusal("wrong_e:app", interface=interface))
    assert message.startswith(f"wrong_e:app {told}" if told else "interface 'asgi4' is not known")


# What is found, but cannot be served

BAD = {
    "class app:\n def __init__(self, inner): ...\n async def __call__(self, scope, receive, send): ...": (
        "is a class, not an application: name an instance of it"
    ),
    "def app(): ...": ("is a function that takes no arguments: if calling it makes the application, add --factory"),
    "class app: ...": ("is a class that takes no arguments: if calling it makes the application, add --factory"),
    "async def app(scope, receive): ...": ("is not an application: it cannot be called with (scope, receive, send)"),
    "def app(a, b, c, d): ...": "is not an application: it cannot be called with (scope, receive, send)",
    "def app(settings): ...": (
        "takes one argument, which is not called scope: if it is an ASGI 2 application, set interface: asgi2"
    ),
    "app = 7": "is an int, not an application: it cannot be called",
    "app = None": "is None, not an application: it cannot be called",
}


@pytest.mark.parametrize(("source", "told"), BAD.items(), ids=BAD)
def test_what_cannot_be_served_is_named(write: Write, source: str, told: str) -> None:
    write("bad_e.py", source)
    error = refusal("bad_e:app")
    assert str(error) == f"bad_e:app {told}"
    assert error.trace == ""


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("make = 7", "factory fact_e:make is an int, which cannot be called"),
        ("def make(settings): ...", "needs arguments, but a factory is called without any"),
        (
            "async def make(scope, receive, send): ...",
            "looks like the application itself: leave --factory out",
        ),
        ("async def make(): ...", "is a coroutine, not an application: a factory must not be async"),
        ("def make(): ...", "what the factory fact_e:make returned is None, not an application"),
        ("def make(): return lambda: 0", "cannot be called with (scope, receive, send)"),
    ],
)
def test_a_factory_that_makes_nothing_to_serve_is_refused(write: Write, source: str, told: str) -> None:
    write("fact_e.py", source)
    error = refusal("fact_e:make", factory=True)
    assert told in str(error)
    assert error.trace == ""


def test_a_factory_that_raises_is_shown(write: Write) -> None:
    write("fact_f.py", "def make():\n    raise ValueError('no\\nsettings')\n")
    error = refusal("fact_f:make", factory=True)
    assert str(error) == "factory fact_f:make was found, but calling it failed: ValueError: no"
    assert "in make" in error.trace


# Tracebacks


def caught(action: Callable[[], object]) -> Exception:
    try:
        action()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def test_a_traceback_without_frames_is_the_line_of_the_exception() -> None:
    assert user_traceback(ValueError("x")) == "ValueError: x\n"
    assert not has_user_frames(ValueError("x"))


def test_members_of_an_exception_group_are_filtered_too() -> None:
    def fail() -> None:
        inner = caught(lambda: load_app("no.such.module:app", app_dir="/no/such/dir"))
        raise ExceptionGroup("both", [inner, ValueError("x")])

    text = user_traceback(caught(fail))
    assert "in fail" in text
    assert "is not a directory" in text
    assert "asgiri/loader.py" not in text


def test_frames_of_the_demo_are_those_of_an_application() -> None:
    from asgiri.demo import app

    def start() -> None:
        call: Awaitable[None] = app({"type": "odd"}, None, None)  # type: ignore[arg-type]
        call.__await__().__next__()

    assert "asgiri/demo/" in user_traceback(caught(start))


def test_an_exception_is_described_in_one_line_whatever_its_text() -> None:
    class MuteError(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert describe(ValueError("one\ntwo")) == "ValueError: one"
    assert describe(ValueError()) == "ValueError"
    assert describe(MuteError()) == "MuteError: <its text cannot be had>"
