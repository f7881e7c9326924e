package h2

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// contract is what handlers may do, and what they then see.
var contract = map[string]http.HandlerFunc{
	"nothing": func(http.ResponseWriter, *http.Request) {},
	"small":   say("<html>hello"),
	"json": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, "{}")
	},
	"4096":          say(long(4090) + "123456"),
	"4097":          say(long(4090) + "1234567"),
	"held":          say(long(16000)),
	"large":         say(long(1 << 20)),
	"status":        func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot); fmt.Fprint(w, "tea") },
	"second-status": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(201); w.WriteHeader(500) },
	"no-content": func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(204)
		_, err := w.Write([]byte("x"))
		note(w, err)
	},
	"not-modified":    func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Etag", `"1"`); w.WriteHeader(304) },
	"late-header":     func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(200); w.Header().Set("Late", "1") },
	"header-at-write": func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "x"); w.Header().Set("Late", "1") },
	"encoded": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "br")
		fmt.Fprint(w, "x")
	},
	"dated":   func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Date", "then"); fmt.Fprint(w, "x") },
	"undated": func(w http.ResponseWriter, _ *http.Request) { w.Header()["Date"] = nil; fmt.Fprint(w, "x") },
	"bad-fields": func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["bad name"], w.Header()["Bad-Value"] = []string{"x"}, []string{"a\nb", "good"}
	},
	"connection-fields": func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Connection", "keep-alive") },
	"many-values":       func(w http.ResponseWriter, _ *http.Request) { w.Header()["Warning"] = []string{"1", "2"} },
	"length": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "5")
		fmt.Fprint(w, "12345")
	},
	"length-unreadable": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "x")
		fmt.Fprint(w, "12345")
	},
	"flushed": func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "a")
		_ = http.NewResponseController(w).Flush()
		fmt.Fprint(w, "b")
	},
	"flushed-first": func(w http.ResponseWriter, _ *http.Request) {
		_ = http.NewResponseController(w).Flush()
		fmt.Fprint(w, "b")
	},
	"trailer": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Trailer", "Sum, Content-Length")
		fmt.Fprint(w, "body")
		w.Header().Set("Sum", "4")
		w.Header().Set(http.TrailerPrefix+"Other", "5")
	},
	"trailer-unset": func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Trailer", "Sum"); fmt.Fprint(w, "body") },
	"early-hints": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", "</x>")
		w.WriteHeader(103)
		fmt.Fprint(w, "x")
	},
	"request": func(w http.ResponseWriter, r *http.Request) {
		names := make([]string, 0, len(r.Header))
		for name, values := range r.Header {
			names = append(names, fmt.Sprintf("%s=%q", name, values))
		}
		slices.Sort(names)
		fmt.Fprintln(w, r.Method, r.URL, r.RequestURI, r.Proto, r.ProtoMajor, r.ContentLength, r.TLS != nil, r.RemoteAddr != "", names)
		fmt.Fprintln(w, r.Context().Value(http.ServerContextKey) != nil, r.Context().Value(http.LocalAddrContextKey) != nil)
	},
	"body": func(w http.ResponseWriter, r *http.Request) {
		text, err := io.ReadAll(r.Body)
		fmt.Fprintln(w, r.ContentLength, len(text), err, r.Trailer)
	},
	"half-a-body": func(w http.ResponseWriter, r *http.Request) {
		_, err := io.ReadFull(r.Body, make([]byte, 3))
		fmt.Fprintln(w, err, r.Body.Close())
	},
	"unsupported": func(w http.ResponseWriter, _ *http.Request) {
		_, _, err := http.NewResponseController(w).Hijack()
		fmt.Fprintln(w, err, http.NewResponseController(w).EnableFullDuplex())
	},
	"abort":      func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	"abort-late": func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, long(50000)); panic(http.ErrAbortHandler) },
}

// note puts err where the client sees it.
func note(_ http.ResponseWriter, err error) {
	if !errors.Is(err, http.ErrBodyNotAllowed) {
		panic(err)
	}
}

// answered is what the client sees.
func answered(c *http.Client, r *http.Request) string {
	res, err := c.Do(r)
	if err != nil {
		return "no answer"
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if res.Header.Get("Date") != "then" && len(res.Header["Date"]) > 0 {
		res.Header.Set("Date", "now")
	}
	if len(text) > 1000 {
		text = []byte(strconv.Itoa(len(text)))
	}
	// What the client itself takes for the length is of no interest.
	return fmt.Sprint(res.Status, res.Header, res.Trailer, string(text), err != nil)
}

// TestHandlersSeeWhatNetHTTPShows has each handler answer here and in net/http.
func TestHandlersSeeWhatNetHTTPShows(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		for name, h := range contract {
			t.Run(name, func(t *testing.T) {
				theirs := httptest.NewUnstartedServer(h)
				theirs.EnableHTTP2 = true
				theirs.StartTLS()
				defer theirs.Close()
				ours := serving(t, o, h)
				c, d := client(t), client(t)
				for what, ask := range asked {
					want := answered(c, ask(theirs.URL))
					got := answered(d, ask(ours.URL))
					if diff := cmp.Diff(want, got); diff != "" {
						t.Errorf("%s, net/http and ours: %s", what, diff)
					}
				}
			})
		}
	})
}

var asked = map[string]func(url string) *http.Request{
	"GET":  func(url string) *http.Request { return request("GET", url+"/a%2Fb?c=d", nil) },
	"HEAD": func(url string) *http.Request { return request("HEAD", url+"/", nil) },
	"POST": func(url string) *http.Request { return request("POST", url+"/", strings.NewReader(long(200000))) },
	"POST, length unknown": func(url string) *http.Request {
		r := request("POST", url+"/", io.MultiReader(strings.NewReader("abcdef")))
		r.Trailer = http.Header{"Sum": {"6"}}
		return r
	},
	"POST, nothing": func(url string) *http.Request { return request("POST", url+"/", http.NoBody) },
	"POST, expecting": func(url string) *http.Request {
		r := request("POST", url+"/", strings.NewReader("abcdef"))
		r.Header.Set("Expect", "100-continue")
		return r
	},
	"cookies": func(url string) *http.Request {
		r := request("GET", url+"/", nil)
		r.AddCookie(&http.Cookie{Name: "a", Value: "1"})
		r.AddCookie(&http.Cookie{Name: "b", Value: "2"})
		return r
	},
}

func request(method, url string, body io.Reader) *http.Request {
	r, err := http.NewRequest(method, url, body)
	if err != nil {
		panic(err)
	}
	r.Host = "example.org"
	return r
}

func TestHTTP1IsNetHTTPs(t *testing.T) {
	srv := serving(t, Options{}, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Proto) })
	tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}}}
	defer tr.CloseIdleConnections()
	res, err := (&http.Client{Transport: tr}).Get(srv.URL)
	if got := read(t, res, err); got != "HTTP/1.1" {
		t.Errorf("got %s", got)
	}
}
