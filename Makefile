# make demo   see it work, no network needed (ARGS=--once: the story alone)
# make run    run the mirror (ARGS="--source https://images.smartos.org")
# make test   what CI runs: format, vet, every test with the race detector
# make bench  the mirror beside nginx, Varnish and a C server, into docs/performance.md (QUICK=1, ONLY=REGEXP, OLD=REVISION)
# make microbench   the benchmarks of the packages, and those of the built binary
# make check  test, the linters and the cross builds: before a commit
# make dist   what is released, in dist/VERSION: deb, rpm, archives, SBOM, SHA256SUMS
# make film   the film of the demo in the README, of a run just now
# make screenshots   pictures of the page, in both themes at two widths, in dist/screenshots

VERSION ?= $(shell deploy/version.sh)
LDFLAGS := -s -w -X main.version=$(VERSION)
BUILD   := CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '$(LDFLAGS)'

# illumos first: it is what the mirror is made for.
PLATFORMS := illumos/amd64 linux/amd64 linux/arm64 freebsd/amd64 darwin/arm64

# Pinned; built from its module by the Go tool-chain, kept in the build cache.
GOLANGCI := go run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0

.PHONY: demo film run build test check bench microbench cross dist lint fmt tools vet man screenshots

build:
	$(BUILD) -o imgmirror ./cmd/imgmirror

demo: build
	./imgmirror demo $(ARGS)

# On Linux.
film: build
	go run ./docs/film -o docs/pictures/demo.svg ./imgmirror demo --once

run: build
	./imgmirror serve $(ARGS)

# The end-to-end tests want the machine for themselves: they run last.
# They build the binary, of which the cache of test results knows nothing: -count=1.
test: tools vet
	go test -race -timeout 15m $$(go list ./... | grep -v '/e2e$$')
	go test -race -count=1 -timeout 15m ./e2e

check: test lint cross

# QUICK=1: less than three minutes, of all groups, on two idle cores. ONLY='^small': the scenarios that match. OLD=REVISION:
# the mirror of the revision, too, pair by pair, and nothing else. A run of all scenarios in full writes docs/performance.md.
bench:
	./e2e/install.sh bench
	go run ./bench $(if $(QUICK),-quick) $(if $(ONLY),-only '$(ONLY)') $(if $(OLD),-old '$(OLD)') \
		$(if $(QUICK)$(ONLY)$(OLD),,-o docs/performance.md)

# The end-to-end ones take minutes a round.
microbench:
	go test -run '^$$' -bench . -benchmem $$(go list ./... | grep -v '/e2e$$')

cross:
	@set -e; for p in $(PLATFORMS); do \
		out=dist/imgmirror-$${p%/*}-$${p#*/}; echo "$$out"; \
		GOOS=$${p%/*} GOARCH=$${p#*/} $(BUILD) -o "$$out" ./cmd/imgmirror; \
	done

# The same commit gives the same bytes.
dist:
	rm -rf 'dist/$(VERSION)'
	VERSION='$(VERSION)' PLATFORMS='$(PLATFORMS)' deploy/dist.sh 'dist/$(VERSION)'

# imgmirror(8), a page of each verb, and imgmirror.yaml(5), made from the commands and the keys.
man: build
	mkdir -p dist/man
	SOURCE_DATE_EPOCH=$${SOURCE_DATE_EPOCH:-$$(git log -1 --format=%ct)} ./imgmirror man dist/man

# Each page of the web page, as operators and as clients see it, in a real browser.
screenshots: tools
	mkdir -p dist/screenshots
	go test -count=1 -run '^TestPageLooks$$' ./e2e -pictures '$(CURDIR)/dist/screenshots'

lint:
	$(GOLANGCI) run

fmt:
	gofmt -w .

# What the tests run beside Go: see e2e/install.sh.
tools:
	./e2e/install.sh

vet:
	@bad=$$(gofmt -l .) && test -z "$$bad" || { echo "not gofmt-ed (make fmt): $$bad" >&2; exit 1; }
	go vet ./...
