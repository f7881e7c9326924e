package wire

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
)

// HTTP1 sends r over a connection of its own and reads the answer. The error is
// about reaching the server; whatever happens after that is in the Response.
func (s Server) HTTP1(ctx context.Context, r Request) (Response, error) {
	r = r.withDefaults()
	conn, err := s.dial(ctx, "http/1.1")
	if err != nil {
		return Response{}, err
	}
	defer bound(ctx, conn)()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer conn.Close()
	wg.Go(func() {
		// The server may answer and hang up before it has all.
		_, _ = conn.Write(r.bytes())
		if r.Length != nil && *r.Length > len(r.Body) {
			_ = conn.CloseWrite()
		}
	})
	return readResponse(bufio.NewReader(conn), r.Method), nil
}

// Raw sends bytes as they are and reads all answers until the server closes the
// connection, so the last request in them should ask for that.
func (s Server) Raw(ctx context.Context, text string) ([]Response, error) {
	conn, err := s.dial(ctx, "http/1.1")
	if err != nil {
		return nil, err
	}
	defer bound(ctx, conn)()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer conn.Close()
	wg.Go(func() { _, _ = io.WriteString(conn, text) })
	var all []Response
	for br := bufio.NewReader(conn); ; {
		if _, err := br.Peek(1); err != nil {
			return all, nil
		}
		res := readResponse(br, http.MethodGet)
		all = append(all, res)
		if res.End != Complete {
			return all, nil
		}
	}
}

// bytes is r as it travels.
func (r Request) bytes() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\n", r.Method, r.Target)
	if r.Host != "-" {
		fmt.Fprintf(&b, "Host: %s\r\n", r.Host)
	}
	writeFields(&b, r.Header)
	switch {
	case r.Chunked:
		fmt.Fprint(&b, "Transfer-Encoding: chunked\r\n\r\n")
		r.writeChunks(&b)
	case r.Length != nil:
		fmt.Fprintf(&b, "Content-Length: %d\r\n\r\n", *r.Length)
		b.Write(r.Body)
	case r.Body != nil:
		fmt.Fprintf(&b, "Content-Length: %d\r\n\r\n", len(r.Body))
		b.Write(r.Body)
	default:
		fmt.Fprint(&b, "\r\n")
	}
	return b.Bytes()
}

// writeChunks uses several chunks, so that a reader meets their borders.
func (r Request) writeChunks(b *bytes.Buffer) {
	for rest := r.Body; len(rest) > 0; {
		n := min(len(rest), max(1, len(r.Body)/3))
		fmt.Fprintf(b, "%x\r\n%s\r\n", n, rest[:n])
		rest = rest[n:]
	}
	fmt.Fprint(b, "0\r\n")
	writeFields(b, r.Trailer)
	fmt.Fprint(b, "\r\n")
}

func writeFields(w io.Writer, fields []Field) {
	for _, f := range fields {
		fmt.Fprintf(w, "%s: %s\r\n", f.Name, f.Value)
	}
}

func readResponse(br *bufio.Reader, method string) (out Response) {
	for {
		res, err := http.ReadResponse(br, &http.Request{Method: strings.ToUpper(method)})
		if err != nil {
			out.End = NoAnswer
			return out
		}
		if res.StatusCode < 200 && res.StatusCode != http.StatusSwitchingProtocols {
			out.Interim = append(out.Interim, Interim{res.StatusCode, res.Header})
			continue
		}
		out.Code, out.Header, out.End = res.StatusCode, res.Header, Complete
		if res.StatusCode == http.StatusSwitchingProtocols {
			return out
		}
		out.Body, err = io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil {
			out.End = Cut
		}
		if errors.Is(err, io.EOF) {
			out.End = Complete
		}
		out.Trailer = res.Trailer
		return out
	}
}
