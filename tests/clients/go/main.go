// Go's net/http, as a client: HTTP/1.1 or HTTP/2, whichever is agreed on; bodies both ways, trailers, a request given up.
package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"
)

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func check(good bool, what string, seen ...any) {
	if !good {
		must(fmt.Errorf("%s: %v", what, seen))
	}
}

func main() {
	url, proto := os.Args[1], os.Args[2]
	config := &tls.Config{}
	if len(os.Args) > 3 {
		pem, err := os.ReadFile(os.Args[3])
		must(err)
		config.RootCAs = x509.NewCertPool()
		config.RootCAs.AppendCertsFromPEM(pem)
	}
	transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true, MaxConnsPerHost: 4}
	client := &http.Client{Transport: transport, Timeout: 20 * time.Second}

	large := bytes.Repeat([]byte("z"), 2<<20)
	for _, body := range []io.Reader{bytes.NewReader(large), io.MultiReader(bytes.NewReader(large))} { // sized, and not
		answer, err := client.Post(url+"/", "application/octet-stream", body)
		must(err)
		data, err := io.ReadAll(answer.Body)
		must(err)
		answer.Body.Close()
		check(answer.Proto == proto, "protocol", answer.Proto)
		check(bytes.Equal(data, large), "the echo differs", len(data))
	}

	var all sync.WaitGroup
	for number := 0; number < 60; number++ {
		all.Add(1)
		go func(word string) {
			defer all.Done()
			answer, err := client.Post(url+"/", "text/plain", strings.NewReader(word))
			must(err)
			data, err := io.ReadAll(answer.Body)
			must(err)
			answer.Body.Close()
			check(string(data) == word, "an answer that was not asked for", string(data))
		}(fmt.Sprint(number))
	}
	all.Wait()

	request, err := http.NewRequest("POST", url+"/trailers", nil)
	must(err)
	request.Header.Set("TE", "trailers")
	answer, err := client.Do(request)
	must(err)
	data, err := io.ReadAll(answer.Body)
	must(err)
	answer.Body.Close()
	check(string(data) == "body", "body", string(data))
	check(answer.Trailer.Get("X-Sum") == "42", "trailer", answer.Trailer)

	given, giveUp := context.WithCancel(context.Background())
	request, err = http.NewRequestWithContext(given, "GET", url+"/endless", nil)
	must(err)
	answer, err = client.Do(request)
	must(err)
	_, err = io.ReadFull(answer.Body, make([]byte, 1000))
	must(err)
	giveUp()
	_, err = io.ReadAll(answer.Body)
	check(err != nil, "an answer that was given up came to an end")
	answer.Body.Close()

	answer, err = client.Head(url + "/")
	must(err)
	answer.Body.Close()
	check(answer.StatusCode == 200 && answer.Proto == proto, "after that", answer.Status, answer.Proto)
	fmt.Println("good")
}
