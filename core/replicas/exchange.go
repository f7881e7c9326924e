package replicas

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sync"
)

const (
	leasePath  = "/v1/lease"
	floorsPath = "/v1/floors"
	leavePath  = "/v1/leave"

	// maxMessage bounds what is read of one, in bytes.
	maxMessage = 1 << 20
	// maxFloors is how many are told in one, which has to arrive within half a lease.
	// Each has two names of at most 253 bytes, each of which is at most six in JSON.
	maxFloors = 64
)

// member is a proxy and which process of it is meant.
type member struct {
	Address  string `json:"address"`
	Instance string `json:"instance"`
}

// hello asks for a lease and says who else is there; to leave, it says who goes.
type hello struct {
	member
	Members []member `json:"members,omitempty"`
}

type leaseAnswer struct {
	Granted  bool     `json:"granted"`
	Instance string   `json:"instance"`
	Members  []member `json:"members,omitempty"`
}

// news are what a peer is about to show.
type news struct {
	From   string  `json:"from"`
	Floors []Floor `json:"floors"`
}

// hello is what this proxy says of itself.
func (r *Replicas) hello() hello {
	r.mu.Lock()
	defer r.mu.Unlock()
	return hello{member{r.options.Address, r.instance}, r.members()}
}

// members are those that this proxy has heard of within a lease. The caller holds
// r.mu.
func (r *Replicas) members() (all []member) {
	now := r.now()
	for a, p := range r.peers {
		if p.instance != "" && !p.left && now.Sub(p.met) < r.options.Lease {
			all = append(all, member{a, p.instance})
		}
	}
	return all
}

// leave tells all peers that this proxy acknowledges nothing any more.
func (r *Replicas) leave(ctx context.Context) {
	// What ends this proxy must not keep it from saying so.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.options.Lease/2)
	defer cancel()
	var told sync.WaitGroup
	defer told.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.peers {
		told.Go(func() {
			if err := r.post(ctx, p, leavePath, hello{member: member{r.options.Address, r.instance}}, &struct{}{}); err != nil {
				r.options.Log.V(1).Info("a peer has not heard that this proxy ends", "peer", p.address, "reason", err.Error())
			}
		})
	}
}

// post sends p a message and reads its answer.
func (r *Replicas) post(ctx context.Context, p *peer, path string, message, answer any) error {
	body, err := json.Marshal(message)
	if err != nil {
		return fmt.Errorf("write message: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, r.options.Lease/2)
	defer cancel()
	q, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+p.address+path, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("make request: %w", err)
	}
	res, err := r.client.Do(q)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", path, res.Status) //nolint:err113 // nobody asks which
	}
	if err := json.NewDecoder(io.LimitReader(res.Body, maxMessage)).Decode(answer); err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	return nil
}
