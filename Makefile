# make demo: trains on MNIST, wholly on the GPU.   make test: the suite, in minutes.   make test-all: all that there is to
# test.   Each makes sure of an adapter first.
.PHONY: demo test test-all test-grids test-limited test-swiftshader fuzz bench bench-device bench-peers isa isa-ci sass \
  test-browser adapter

# A Vulkan driver, and a linker for Rust; on a fresh Debian or Ubuntu both come from apt.
adapter:
	@if [ "$$(uname)" = Linux ]; then \
	  need=; \
	  drivers=$$(find /usr/share/vulkan/icd.d /usr/local/share/vulkan/icd.d /etc/vulkan/icd.d -name '*.json' 2>/dev/null); \
	  [ -n "$$drivers$$VK_DRIVER_FILES$$VK_ICD_FILENAMES" ] || need="mesa-vulkan-drivers libvulkan1"; \
	  command -v cc >/dev/null 2>&1 || need="$$need build-essential"; \
	  if [ -n "$$need" ]; then \
	    echo "no GPU driver or no linker found: installing $$need with apt-get"; \
	    sudo=; [ "$$(id -u)" = 0 ] || sudo=sudo; \
	    $$sudo apt-get -qq update && $$sudo env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y $$need >/dev/null; \
	  fi; \
	fi

demo: adapter
	cargo run --release --example train_mnist

# Compiling kernels is nearly all of what tests cost. `make test` runs every test, and of the grids that are generic (extra
# inputs x reductions x shapes x storage types, for every loss; a kernel forced at every boundary) one of SHARES parts, another
# one with another commit. More losses make more parts, not a longer test: seven losses of golden data to a part.
SHARES = $(shell expr $$(ls tests/golden/*.safetensors | wc -l) / 7)
SHARE = $(shell printf %d 0x$$(git rev-parse --short=7 HEAD 2>/dev/null || echo 0))
PART_OF_GRIDS = WGLOSS_TEST_SHARE=$(SHARE)/$(SHARES)
test: adapter
	$(PART_OF_GRIDS) $(CARGO_TEST)

# Everything: the whole grids on the adapter; what depends on limits, with no more than every WebGPU device has; the whole
# grids on SwiftShader; kernels in a browser's compiler.
test-all: test-grids test-limited test-swiftshader test-browser
test-grids: adapter
	$(CARGO_TEST)

# `losses` is not among it: golden data is there for every loss. Most kernels are those of the other passes: what changes
# how Mesa compiles (GALLIVM_PERF) would miss its disk cache.
LIMITED = fused golden lower plan schedule shape
test-limited: adapter
	WGLOSS_TEST_LIMITS=webgpu $(CARGO_TEST) $(LIMITED:%=--test %)

# With PART=1, the part of the grids that `make test` takes.
SWIFTSHADER = $(shell dpkg -L chromium-common 2>/dev/null | grep vk_swiftshader_icd.json)
test-swiftshader: adapter
	@if [ -z "$(SWIFTSHADER)" ]; then \
	  echo "SwiftShader is not installed (the package chromium-common has it): its tests are skipped"; \
	else \
	  set -x; VK_DRIVER_FILES=$(SWIFTSHADER) WGPU_BACKEND=vulkan $(if $(PART),$(PART_OF_GRIDS)) $(CARGO_TEST); \
	fi

# Chromium's compiler, Tint, makes pipelines of every kernel family.
CHROMIUM = $(shell command -v chromium || command -v chromium-browser || command -v google-chrome)
test-browser: adapter
	@if [ -z "$(CHROMIUM)" ]; then \
	  echo "no Chromium is installed: Tint compiles nothing"; \
	else \
	  set -x; WGLOSS_CHROMIUM=$(CHROMIUM) WGLOSS_REQUIRE_ADAPTER=1 cargo test --test schedule browser; \
	fi

CARGO_TEST = WGLOSS_REQUIRE_ADAPTER=1 cargo test --workspace

# Random problems, GPU against CPU, for MINUTES, from the seed START (the clock's, where none is given); ends with what
# was covered and all failures, shrunk. `make test` has a small, fixed share of it.
fuzz: adapter
	WGLOSS_REQUIRE_ADAPTER=1 WGLOSS_FUZZ_MINUTES=$(or $(MINUTES),10) $(if $(START),WGLOSS_FUZZ_START=$(START)) \
	  cargo test --test differential

bench: adapter
	cargo bench

# Large losses on this machine's device: checked, then timed beside a copy and, where installed, PyTorch, Liger, QuACK.
bench-device: adapter
	benches/device.sh

# wgloss beside PyTorch, candle and Burn, whichever this machine has: interleaved, same numbers; ratios and a record.
# BURN=1 builds Burn first (13 minutes on 2 cores); PYTHON=... is the interpreter that has torch.
bench-peers: adapter
	BURN=$(BURN) PYTHON=$(or $(PYTHON),python3) benches/peers/run

# The catalogue's kernels as AMD's compiler makes them for GPUs that are not here: instructions per element, registers,
# spills. Fails where one spills or passes its budget. ARGS="--loss mse --all" chooses; a record goes to JSON.
isa: adapter
	cargo run -q -p isa -- amd --jobs $(or $(JOBS),2) $(if $(JSON),--json $(JSON)) $(ARGS)

# One problem of each kernel family, in seconds.
isa-ci: adapter
	cargo run -q -p isa -- amd --few

# The same kernels as NVIDIA's compiler makes them for an H100, by Python packages (1 GB) in a folder of their own.
SASS = target/sass
sass:
	[ -x $(SASS)/bin/python ] || python3 -m venv $(SASS)
	$(SASS)/bin/pip install -q --no-deps slangtorch==1.3.22 nvidia-cuda-nvcc-cu12==12.9.86 nvidia-cuda-nvrtc-cu12==12.9.86 \
	  nvidia-cuda-runtime-cu12==12.9.79 nvidia-cuda-nvdisasm==13.5.37
	cargo run -q -p isa -- hlsl $(or $(ARGS),--loss cross_entropy --loss jsd --loss mse --loss bce_with_logits) $(SASS)/kernels
	$(SASS)/bin/python benches/isa/sass.py $(SASS)/kernels $(if $(JSON),--json $(JSON))
