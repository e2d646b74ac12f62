# Every target works on a checkout with Go and nothing else, but for what its
# line says. Tools are pinned here and live in .tools/.

GOLANGCI_LINT := v2.15.0
GOVULNCHECK   := v1.8.0
FUZZTIME      ?= 30s
VERSION       ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
ENGINE        ?= docker

TOOLS := $(CURDIR)/.tools
# Debian keeps Postfix's commands where only root looks.
export PATH := $(PATH):/usr/sbin:/sbin

.DEFAULT_GOAL := help
.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## build ./mailsidecar
	CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o mailsidecar .

.PHONY: sendmail
sendmail: ## build the sendmail program alone, dist/sendmail
	CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o dist/sendmail ./cmd/sendmail

.PHONY: demo
demo: ## show the product with a relay of its own, no setup
	go run . demo

.PHONY: test
test: test-deps ## run every test, the ones against real servers too
	scripts/test

.PHONY: test-deps
test-deps: ## install what tests need beside Go (Debian; root or sudo)
	scripts/install-test-deps
	scripts/install-php-deps
	scripts/install-sdks
	scripts/install-browser

.PHONY: check
check: lint test ## what a change must pass: lint and test

.PHONY: lint
lint: $(TOOLS)/golangci-lint-$(GOLANGCI_LINT) ## format, vet, layout and style; shell scripts where shellcheck is
	$< run
	cd bench && $< run
	cd integration/oauth2 && $< run
	cd integration/browser && $< run
	@if command -v shellcheck >/dev/null; then shellcheck scripts/* .ci/run; else echo 'no shellcheck: shell scripts not checked'; fi

.PHONY: fmt
fmt: $(TOOLS)/golangci-lint-$(GOLANGCI_LINT) ## format the code
	$< fmt

.PHONY: fuzz
fuzz: ## run each fuzz target for FUZZTIME (30s)
	scripts/fuzz $(FUZZTIME)

.PHONY: sim
sim: ## try to break every promise, 4 minutes; SEEDS=100000 for as many histories
	scripts/sim

.PHONY: soak
soak: ## half an hour with the dashboard open and metrics scraped: nothing grows
	scripts/install-browser
	go -C integration/browser test -run TestSoak -soak 30m -v -timeout 45m

.PHONY: mutants
mutants: ## plant faults, and have the simulator find them; all of them, 30 minutes
	go test ./sim/mutants -run TestCaught -v -timeout 60m -mutants 100

.PHONY: bench
bench: ## measure beside the peers, about ten minutes (Debian installs peers; root for Postfix)
	bench/install-peers
	cd bench && go run . $(BENCHFLAGS)

.PHONY: bench-short
bench-short: ## a look at the same, about two minutes; writes nothing
	bench/install-peers
	cd bench && go run . -short $(BENCHFLAGS)

.PHONY: vuln
vuln: $(TOOLS)/govulncheck-$(GOVULNCHECK) ## look for known vulnerabilities (asks the online database)
	$< ./...

.PHONY: image
image: ## build the container image (needs docker, or ENGINE=podman)
	$(ENGINE) build --build-arg VERSION=$(VERSION) -t mailsidecar:$(VERSION) -t mailsidecar:latest .

.PHONY: image-check
image-check: ## build the image without an engine or a registry and start it (Debian; root)
	scripts/check-image

.PHONY: clean
clean: ## remove what was built and the pinned tools
	rm -rf mailsidecar dist $(TOOLS)

# A tool's file name carries its version, so that a new pin is a new target.
$(TOOLS)/golangci-lint-%:
	$(call install,github.com/golangci/golangci-lint/v2/cmd/golangci-lint,$*,$@)

$(TOOLS)/govulncheck-%:
	$(call install,golang.org/x/vuln/cmd/govulncheck,$*,$@)

define install
	@echo "installing $(notdir $(1)) $(2), once; compiling takes a few minutes"
	GOBIN=$(TOOLS)/new go install $(1)@$(2)
	mv $(TOOLS)/new/$(notdir $(1)) $(3)
	rmdir $(TOOLS)/new
endef
