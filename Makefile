# make demo: trains on MNIST, wholly on the GPU.   make test: the whole suite.   Both make sure of an adapter first.
.PHONY: demo test fuzz bench bench-device bench-peers adapter

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

# The suite with all that the adapter has; then, with no more than every WebGPU device has, what depends on that.
# GALLIVM_PERF: without Mesa's optimizer, which takes longer than these kernels run; the first pass has it.
# `losses` and `random` are not among it: golden data is there for every loss, and kernels are slow to compile.
LIMITED = chunks embedding errors explain extras gathers golden groups hostile in_place poison schedules \
  separate_backward shards softmax storage ties
test: adapter
	WGLOSS_REQUIRE_ADAPTER=1 cargo test --workspace
	GALLIVM_PERF=nopt WGLOSS_REQUIRE_ADAPTER=1 WGLOSS_TEST_LIMITS=webgpu cargo test --workspace $(LIMITED:%=--test %)

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
