"""What NVIDIA's backend makes of the kernels that `isa hlsl` wrote, without an NVIDIA GPU.

    sass.py FOLDER [--arch sm_90] [--json PATH] [--budgets PATH]

HLSL (naga) -> CUDA C++ (slangc) -> PTX (NVRTC) -> machine code (ptxas), with as many registers as the workgroup leaves a
lane. NVIDIA's Vulkan driver has another front end before the same backend: counts are near those of a GPU, not equal. Two
things that the detour adds are taken out again: loops in the form that HLSL writers give them, whose trip counts compilers
do not see, and accesses of 16 bytes that are split into words.

Exit code 1 where a kernel of a budget (`[[nvidia]]` of budgets.toml) passes it. The packages: `make sass` installs them.
"""

import argparse
import ctypes
import datetime
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import tomllib

REGISTERS = 65536  # of a multiprocessor
MOST_REGISTERS = 255  # of a lane

# Built-ins of HLSL, as the CUDA target of slangc knows them.
SEMANTICS = {"SV_GroupIndex": "thread.x", "SV_GroupID": "group", "SV_GroupThreadID": "thread"}
MAIN = "void main(uint3 group : SV_GroupID, uint3 thread : SV_GroupThreadID)"


def closing(text, begin):
    """Index of the brace that closes the one at `begin`."""
    depth = 0
    for at in range(begin, len(text)):
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        if depth == 0:
            return at
    raise ValueError("a brace that nothing closes")


def with_known_inputs(text):
    """`main` with built-ins that slangc's CUDA target has; the number of workgroups is a constant."""
    struct = re.search(r"struct ComputeInput_main \{(.*?)\};", text, re.S)
    if struct:
        text = re.sub(r"void main\(ComputeInput_main \w+\)", MAIN, text.replace(struct.group(0), ""))
        for name, semantic in re.findall(r"\w+ (\w+) : (\w+);", struct.group(1)):
            text = re.sub(rf"computeinput_main\.{name}\b", SEMANTICS[semantic], text)
        return text
    head = re.search(r"void main\(([^)]*)\)\s*\{", text)
    lets = []
    for kind, name, _, semantic in (parameter.split() for parameter in head.group(1).split(",")):
        # naga's number of workgroups comes in a constant buffer; which one it is does not matter here.
        value = SEMANTICS.get(semantic) if name != "groups" else "uint3(65535u, 1u, 1u)"
        if value != name:
            lets.append(f"    {kind} {name}_ = {value};\n")
            text = re.sub(rf"\b{name}\b", f"{name}_", text)
    head = re.search(r"void main\(([^)]*)\)\s*\{", text)
    return text.replace(head.group(0), MAIN + "\n{\n" + "".join(lets))


def with_plain_loops(text):
    """`while (true) { if (!first) { step } first = false; body }` as `while (true) { body step }`."""
    pattern, at = re.compile(r"bool (loop_init\w*) = true;\s*while\(true\) \{"), 0
    while found := pattern.search(text, at):
        end = closing(text, found.end() - 1)
        body = text[found.end() : end]
        step = re.match(rf"\s*if \(!{found.group(1)}\) \{{", body)
        at = found.end()
        if step:
            close = closing(body, step.end() - 1)
            rest = re.sub(rf"^\s*{found.group(1)} = false;", "", body[close + 1 :], count=1)
            text = text[: found.start()] + "while(true) {" + rest + body[step.end() : close] + "}" + text[end + 1 :]
            at = found.start() + len("while(true) {")
    return text


SHIFTS = "".join(
    f"__device__ inline int{n} operator{op}(int{n} a, uint{n} b) "
    f"{{ return make_int{n}({', '.join(f'a.{c} {op} b.{c}' for c in 'xyzw'[:n])}); }}\n"
    for n in (2, 3, 4)
    for op in ("<<", ">>")
)

LOAD = r"uint (_S\d+) = \(([^;]*?)\)\.Load<uint >\("
WORDS = re.compile(
    LOAD + r"([^;]*?)\);\s*" + LOAD + r"\3 \+ 4U\);(?:\s*" + LOAD + r"\3 \+ 8U\);\s*" + LOAD + r"\3 \+ 12U\);)?"
)
STORES = re.compile(
    r"([\w>\-\[\]]+)\.Store\((_S\d+),([^;]*?)\);\s*(?:RWByteAddressBuffer (_S\d+) = [^;]*;\s*)?"
    r"(_S\d+|[\w>\-]+)\.Store\(\2 \+ 4U,([^;]*?)\);"
    r"(?:\s*(?:\w+ _S\d+ = [^;]*;\s*)?\5\.Store\(\2 \+ 8U,([^;]*?)\);\s*\5\.Store\(\2 \+ 12U,([^;]*?)\);)?"
)


def with_whole_vectors(text):
    """slangc's CUDA with neighbouring words accessed as one vector, and votes of all lanes."""
    at = text.rfind("struct GlobalParams") if "struct GlobalParams" in text else text.index('extern "C" __global__')
    prelude, code = text[:at], re.sub(r"(?m)^#line.*\n", "", text[at:])
    code = re.sub(r"__ballot_sync\([^;]*?\)(?=;)", "4294967295U", code)
    count = 0

    def load(match):
        nonlocal count
        count += 1
        names = [name for name in (match.group(1), match.group(4), match.group(6), match.group(8)) if name]
        lets = "".join(f" uint {name} = vector{count}.{c};" for name, c in zip(names, "xyzw"))
        kind = f"uint{len(names)}"
        return f"{kind} vector{count} = *(const {kind}*)((const char*)({match.group(2)}).data + ({match.group(3)}));{lets}"

    def store(match):
        values = [value for value in (match.group(3), match.group(6), match.group(7), match.group(8)) if value]
        kind = f"uint{len(values)}"
        return f"*({kind}*)((char*)({match.group(1)}).data + ({match.group(2)})) = make_{kind}({', '.join(values)});"

    code = STORES.sub(store, WORDS.sub(load, code))
    return prelude + SHIFTS + code.replace("for(;;)", '_Pragma("unroll") for(;;)')


class Tools:
    """The packages' compilers."""

    def __init__(self):
        self.site = pathlib.Path(next(path for path in sys.path if path.endswith("site-packages")))
        self.slang = self.site / "slangtorch" / "bin"
        self.nvrtc = ctypes.CDLL(str(self.find("libnvrtc.so.12")))
        self.include = self.find("cuda_runtime/include")
        self.programs = {name: self.find(f"bin/{name}") for name in ("ptxas", "nvdisasm")}
        self.programs["slangc"] = self.slang / "slangc"
        for program in self.programs.values():
            program.chmod(0o755)  # wheels do not keep it

    def find(self, name):
        found = next(self.site.rglob(name), None)
        if found is None:
            sys.exit(f"{name} is not in {self.site}: `make sass` installs the packages that have it")
        return found

    def cuda(self, folder):
        options = ["-lang", "hlsl", "-target", "cuda", "-entry", "main", "-stage", "compute"]
        command = [self.programs["slangc"], folder / "k.hlsl", *options, "-o", folder / "k.cu"]
        done = subprocess.run(command, capture_output=True, text=True, env={"LD_LIBRARY_PATH": str(self.slang)})
        if done.returncode:
            raise RuntimeError("slangc: " + "; ".join(line for line in done.stderr.splitlines() if "error" in line)[:600])
        return (folder / "k.cu").read_text()

    def ptx(self, text):
        library, program, size = self.nvrtc, ctypes.c_void_p(), ctypes.c_size_t()
        if library.nvrtcCreateProgram(ctypes.byref(program), text.encode(), b"k.cu", 0, None, None):
            raise RuntimeError("NVRTC makes no program")
        options = [b"--gpu-architecture=compute_90", b"-default-device", b"--std=c++17", b"--use_fast_math"]
        options.append(b"-I" + str(self.include).encode())
        failed = library.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
        what = "ProgramLog" if failed else "PTX"
        getattr(library, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
        out = ctypes.create_string_buffer(size.value)
        getattr(library, f"nvrtcGet{what}")(program, out)
        library.nvrtcDestroyProgram(ctypes.byref(program))
        if failed:
            lines = [line for line in out.value.decode().splitlines() if "error" in line]
            raise RuntimeError("NVRTC: " + "; ".join(lines)[:600])
        return out.value

    def counts(self, hlsl, arch):
        """Instructions, registers, bytes spilled, and the registers that a lane has."""
        sizes = re.search(r"\[numthreads\((\d+), (\d+), (\d+)\)\]", hlsl).groups()
        workgroup = int(sizes[0]) * int(sizes[1]) * int(sizes[2])
        most = min(MOST_REGISTERS, REGISTERS // max(workgroup, 64) // 8 * 8)
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            (folder / "k.hlsl").write_text(with_plain_loops(with_known_inputs(hlsl)))
            (folder / "k.ptx").write_bytes(self.ptx(with_whole_vectors(self.cuda(folder))))
            command = [self.programs["ptxas"], f"-arch={arch}", f"-maxrregcount={most}", "-v", folder / "k.ptx"]
            log = subprocess.run([*command, "-o", folder / "k.cubin"], check=True, capture_output=True, text=True).stderr
            command = [self.programs["nvdisasm"], "-c", folder / "k.cubin"]
            code = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        names = re.findall(r"^\s+/\*[0-9a-f]{4,5}\*/\s+(?:@!?U?P\w+\s+)?([A-Z0-9_]+)", code, re.M)
        return {
            "workgroup": workgroup,
            "instructions": sum(name != "NOP" for name in names),
            "registers": int(re.search(r"Used (\d+) registers", log).group(1)),
            "registers_of_a_lane": most,
            "spilled_bytes": int(re.search(r"(\d+) bytes spill stores", log).group(1)),
        }


def faults(lines, budgets):
    for budget in budgets:
        case = {key: budget[key] for key in ("loss", "dtype", "shape")}
        found = [line for line in lines if line["case"] == case and "instructions" in line]
        if not found:
            continue
        line, name = found[-1], f"{case['loss']} {case['dtype']} {case['shape']}"
        taken, most = line.get("instructions_per_element"), budget["instructions_per_element"]
        if taken is None or taken > most:
            yield f"{name}: {taken} instructions an element; the budget is {most}"
        if line["spilled_bytes"] > budget["spilled_bytes"]:
            yield f"{name}: {line['spilled_bytes']} bytes spilled; the budget is {budget['spilled_bytes']}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--arch", default="sm_90")
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--budgets", type=pathlib.Path, default=pathlib.Path(__file__).parent / "budgets.toml")
    args = parser.parse_args()
    tools, lines, failed = Tools(), [], 0
    for kernel in json.loads((args.folder / "kernels.json").read_text()):
        case = {key: kernel[key] for key in ("loss", "dtype", "shape")}
        line = {"case": case, "kernel": kernel["title"], "nan": kernel["nan"]}
        try:
            line |= tools.counts((args.folder / kernel["file"]).read_text(), args.arch)
        except RuntimeError as error:
            line["failed"], failed = str(error), failed + 1
        else:
            if kernel["held"]:
                line["instructions_per_element"] = round(line["instructions"] / kernel["held"], 1)
        lines.append(line)
        shown = {key: value for key, value in line.items() if key not in ("case", "kernel")}
        print(f"{case['loss']} {case['dtype']} {case['shape']}: {kernel['title']}\n    {shown}", flush=True)
    if args.json:
        date = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
        head = json.dumps({"format": 1, "date": date, "arch": args.arch})[:-1]
        args.json.write_text(head + ', "kernels": [\n' + ",\n".join(map(json.dumps, lines)) + "\n]}\n")
    spilling = sum(line.get("spilled_bytes", 0) > 0 for line in lines)
    print(f"{len(lines)} kernels, {spilling} spill, {failed} could not be compiled")
    with args.budgets.open("rb") as file:
        found = list(faults(lines, tomllib.load(file).get("nvidia", [])))
    for fault in found:
        print("FAULT", args.arch, fault)
    sys.exit(1 if found else 0)


main()
