# make help lists what this file can do. It needs Go and git; with a C compiler,
# tests run under the race detector.

GO   ?= go
TOOL := $(GO) tool -modfile=.tools/go.mod
# Go itself says whether there is a C compiler, which the race detector needs.
RACE := $(if $(filter 1,$(shell $(GO) env CGO_ENABLED)),-race)
# Many packages start a control plane: two at a time are enough for a machine.
TEST := $(GO) test $(RACE) -p 2
# What is written from the API types, and by what.
GENERATED := crds/manifests ':(glob)crds/**/zz_generated.*.go'
GENERATE  := $(TOOL) controller-gen object crd paths=./crds/... output:crd:dir=crds/manifests

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help build run controlplane test check race lint house generated vulnerabilities programs fmt generate bench soak chaos abuse tiers fuzz clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build bin/portico
	$(GO) build -o bin/portico ./cmd/portico

run: build ## start a control plane with the proxy in front of it; Ctrl-C stops both
	@exec bin/portico dev

controlplane: ## start a control plane alone and print its kubeconfig; Ctrl-C stops it
	@$(GO) run ./test/controlplane/run

test: check race ## check, then run every test: what CI runs

check: lint house generated ## check all that needs no control plane: format, vet, lint, house rules, generated files

race: programs ## run every test under the race detector
	$(if $(RACE),,@echo 'there is no C compiler: the tests run without the race detector')
	$(TEST) -timeout 30m ./...

lint: ## vet and lint, and say what is not formatted
	$(TOOL) golangci-lint run ./...

house: ## check imports, sizes, names and what must stand where
	$(GO) test ./test/house

# Fails if the API types were changed and what is generated from them was not.
generated:
	@state() { git diff -- $(GENERATED); git ls-files --others -- $(GENERATED); }; \
	before=$$(state) && $(GENERATE) && test "$$before" = "$$(state)" || \
	{ git status --short -- $(GENERATED); echo 'generated files were stale: commit what is there now'; exit 1; }

vulnerabilities: ## ask vuln.go.dev whether the binary reaches code that is known to be vulnerable
	$(TOOL) govulncheck ./cmd/portico

# Builds the control plane, once per machine, and says so while it does: the
# minutes this takes would otherwise count as the first test's.
programs:
	$(GO) run ./test/controlplane/run -programs

fmt: ## format all Go files
	$(TOOL) golangci-lint fmt ./...

generate: ## write anew what is generated (the kernel programs only if clang is there)
	$(GENERATE)
	$(if $(shell command -v clang 2>/dev/null),$(GO) generate ./bpf/...)

bench: ## measure requests sent directly and through the proxy, side by side
	$(GO) test ./test/bench -run '^$$' -bench . -benchtime 5x -timeout 60m

soak: programs ## read and write through the cache for a quarter of an hour, and check all that was seen
	PORTICO_SOAK=1000000 $(GO) test ./core/cache ./core/view/lens -v -count 1 -timeout 2h -run '^(TestReadsAreLinearizable|TestSessionsSeeTheirWrites|TestWatchersHaveWhatListsTell)$$'

chaos: programs ## kill and freeze API servers, etcd and proxies under load for an hour, and check all that was seen
	PORTICO_CHAOS=1h $(GO) test ./test/chaos -v -count 1 -timeout 3h

abuse: programs ## send a proxy what nobody should for ten minutes, and see what others get of it
	PORTICO_ABUSE=10m $(GO) test ./test/abuse -v -count 1 -timeout 1h

tiers: programs ## run forty proxies of nodes behind two of an area, measure them, and take either tier away
	PORTICO_TIERS=40 $(GO) test ./test/e2e/tiers -v -count 1 -timeout 1h -run '^TestEitherTierCanBeTakenAway$$'

# Of each target: for how long, how many at once, and workers of each. What was found
# worth keeping is in Go's build cache, and is where the next run begins.
FUZZTIME ?= 1h
FUZZJOBS ?= 1
FUZZPARALLEL ?= 1
# Which targets, as an extended regular expression over "directory target".
FUZZ ?= .

fuzz: programs ## look for input that breaks a parser, an hour for each (FUZZTIME, FUZZJOBS, FUZZ=regexp)
	@git grep -E '^func Fuzz' -- '*_test.go' | sed -E 's|^(.*)/[^/]*:func (Fuzz[A-Za-z0-9_]*).*|./\1 \2|' | grep -E '$(FUZZ)' | \
	xargs -P $(FUZZJOBS) -L 1 sh -c 'echo "$$0 $$1"; exec $(GO) test "$$0" -run "^$$" -fuzz "^$$1\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10s -parallel $(FUZZPARALLEL)'

clean: ## remove what was built here, but not the machine's cache of the control plane
	rm -rf bin
