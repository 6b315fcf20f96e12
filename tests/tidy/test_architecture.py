"""Guards what ARCHITECTURE.md promises: who may include whom, where the world may enter, how long things get.

Every test gathers all offenders and names them as FILE:LINE, so that one run shows all there is to do.
"""

import ast
import re

from conftest import ROOT, files, sources, text

CPP = (".cc", ".h")
MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 75  # about 70
CORE = ("graph", "passes", "plan", "step", "schedule", "sampling", "api", "render", "reconcile")
TORCH_ROOMS = ("exec", "ops", "kv", "weights")
# `echelon run -f` reads the file that the operator reads, by the same code.
SHARED = {"runtime/cli/deployment.cc": ("operator/api/", "operator/render/")}
INCLUDE = re.compile(r'^\s*#\s*include\s+[<"]([^>"]+)[>"]', re.MULTILINE)


def includes(name):
    """(line number, what is included) of a C++ file."""
    return [(text(name).count("\n", 0, m.start()) + 1, m[1]) for m in INCLUDE.finditer(text(name))]


def room_of(name):
    parts = name.split("/")
    return parts[1] if parts[0] in ("runtime", "operator") and len(parts) > 2 else None


def rooms_in_order():
    """As runtime/ and operator/CMakeLists.txt list them; each depends only on those above it."""
    found = re.findall(r"(?:set\(ROOMS|APPEND ROOMS)\s+([^)]*)\)", text("runtime/CMakeLists.txt"))
    found += re.findall(r"foreach\(room IN ITEMS ([^)]*)\)", text("operator/CMakeLists.txt"))
    return " ".join(found).split()


def matches(pattern, names):
    """FILE:LINE of every line that the pattern is found in."""
    return [
        f"{name}:{number}: {line.strip()[:100]}"
        for name in names
        for number, line in enumerate(text(name).splitlines(), 1)
        if re.search(pattern, line)
    ]


def offenders(names, is_wrong):
    return [f"{n}:{line}: includes {what}" for n in names for line, what in includes(n) if is_wrong(n, what)]


def test_a_room_includes_only_rooms_above_it():
    order = rooms_in_order()
    assert len(order) > 8, "runtime/CMakeLists.txt lists no rooms any more; teach this test its new form"
    for room in {room_of(name) for name in sources(*CPP)} - {None} - set(order):
        # Headers alone need no library: such a room stands below all others and includes none of them.
        assert not sources(f"runtime/{room}/CMakeLists.txt"), f"runtime/{room} is missing in runtime/CMakeLists.txt"
        order.insert(0, room)

    def is_wrong(name, what):
        other = room_of(what)
        if what.startswith(SHARED.get(name, ("-",))):
            return False
        return other is not None and other != room_of(name) and (
            other not in order or order.index(other) > order.index(room_of(name))
        )  # fmt: skip

    assert not offenders([n for n in sources(*CPP) if room_of(n)], is_wrong)


def test_runtime_includes_no_test_and_no_operator():
    def is_wrong(name, what):
        return what.startswith(("tests/", "operator/")) and not what.startswith(SHARED.get(name, ("-",)))

    assert not offenders([n for n in sources(*CPP) if n.startswith("runtime/")], is_wrong)


def test_the_operator_links_neither_torch_nor_grpc():
    foreign = re.compile(r"^(torch|ATen|c10|grpc|grpcpp|google/protobuf|runtime/(?!serve/http_listener\.h|sync/|(version|host_port)\.h))")
    assert not offenders([n for n in sources(*CPP) if n.startswith("operator/")], lambda _, what: foreign.match(what))


def test_torch_stays_in_its_rooms():
    def is_wrong(name, what):
        torch = what.startswith(("torch/", "ATen/", "c10/", "caffe2/"))
        return torch and room_of(name) not in TORCH_ROOMS and what != "torch/version.h"

    names = [n for n in sources(*CPP) if not n.startswith(("tests/exec/", "tests/ops/"))]
    assert not offenders(names, is_wrong)


def test_cpprest_stays_in_operator_kube():
    names = [n for n in sources(*CPP) if not n.startswith("operator/kube/")]
    assert len(names) < len(sources(*CPP)), "operator/kube/ is gone; teach this test its new place"
    assert not offenders(names, lambda _, what: what.startswith(("cpprest/", "pplx/")))


def test_core_rooms_do_no_io_take_no_lock_and_read_no_clock():
    effects = re.compile(
        r"^(mutex|thread|chrono|condition_variable|atomic|future|fstream|filesystem|unistd\.h|fcntl\.h|sys/.*|grpc.*"
        r"|spdlog/.*|absl/synchronization/.*|absl/time/clock\.h|runtime/sync/.*)$"
    )
    # A model's bytes enter the graph through the one, a file of deployments through the other.
    rim = ("runtime/graph/byte_source.cc", "operator/render/deployment_file.cc")
    names = [n for n in sources(*CPP) if room_of(n) in CORE and n not in rim]
    assert not offenders(names, lambda _, what: effects.match(what))


def test_headers_are_included_from_the_root():
    local = {n.rsplit("/", 1)[-1] for n in sources(".h")}
    assert not offenders(sources(*CPP), lambda _, what: "/" not in what and what in local)


def test_every_unit_is_built_by_its_folder():
    lost = []
    for name in sources(".cc"):
        folder, unit = name.rsplit("/", 1)
        lists = [n for n in files() if n.startswith(f"{folder}/") and n.endswith((".cmake", "CMakeLists.txt"))]
        if not any(re.search(rf"(?<![\w]){re.escape(unit)}\b", text(n)) for n in lists):
            lost.append(name)
    assert not lost


def test_no_test_sleeps():
    names = [n for n in sources(".cc", ".h", ".py") if "tests/" in n and not n.startswith("tests/tidy/")]
    assert not matches(r"\b(sleep|usleep|nanosleep|sleep_for|sleep_until|SleepFor)\s*\(", names)


def test_benchmarks_are_no_tests():
    assert not matches(r"echelon_test\(|GTest", [n for n in files() if n.startswith("tests/bench/")])


def test_files_are_short():
    names = [n for n in sources(".cc", ".h", ".py", ".sh", ".proto", ".cmake")]
    long = {n: text(n).count("\n") for n in names if text(n).count("\n") > MAX_FILE_LINES}
    assert not long


def cpp_functions(name):
    """(first line, lines) of what looks like a function: a block at indent 0 or 2 whose first line has a '('."""
    opens = re.compile(r"^( {0,2})(?=\S)(?![}#/]|public:|private:|protected:)(.*)$")
    no_function = re.compile(r"^(namespace|class|struct|enum|union|extern|constexpr|const|static const|inline constexpr)\b")
    started = {}
    for number, line in enumerate(text(name).splitlines(), 1):
        if opened := opens.match(line):
            started[len(opened[1])] = (number, opened[2])
        closed = re.match(r"^( {0,2})}", line)
        if closed and len(closed[1]) in started:
            first, head = started.pop(len(closed[1]))
            if "(" in head and not no_function.match(head):
                yield first, number - first + 1


def test_functions_are_short():
    long = [
        f"{name}:{first}: {lines} lines"
        for name in sources(*CPP)
        for first, lines in cpp_functions(name)
        if lines > MAX_FUNCTION_LINES
    ]
    for name in sources(".py"):
        for node in ast.walk(ast.parse(text(name))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                lines = node.end_lineno - node.lineno + 1
                if lines > MAX_FUNCTION_LINES:
                    long.append(f"{name}:{node.lineno}: {lines} lines")
    assert not long


def texts():
    """Files that people write: no corpus, no license, no list of locked versions."""
    machine_made = ("LICENSE", "Cargo.lock")
    return [n for n in files() if not n.startswith("tests/fuzz/corpus/") and not n.endswith(machine_made)]


def test_nothing_is_left_to_do():
    assert not matches(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b", texts())


def test_nothing_names_a_machine_or_a_package_host():
    assert not matches(r"/(work|root|home)/\w", texts())
    allowed = r"kubernetes\.default|echelon\.dev|www\.apache\.org/licenses|arxiv\.org|json-schema\.org/draft|[\w.-]*\bexample\b"
    hosts = rf"https?://(?!{allowed})(?=[\w.-]*[a-z])[\w-]+\.[\w.-]+"
    assert not matches(hosts, texts())
    assert not matches(r"--(extra-)?index-url|--find-links", [n for n in texts() if not n.startswith("tests/tidy/")])


def test_documents_name_only_what_exists():
    path = re.compile(
        r"(?<![\w/.-])((?:runtime|tests|tools|docs|examples|export|proto|operator|charts|crds|images|\.ci)/[\w./*-]*)"
    )
    missing = []
    for name in [n for n in sources(".md") if "/" not in n or n.startswith("docs/")]:
        for number, line in enumerate(text(name).splitlines(), 1):
            for found in path.findall(line):
                wanted = found.rstrip(".")
                if not any(ROOT.glob(wanted.rstrip("/"))):
                    missing.append(f"{name}:{number}: {wanted}")
    assert not missing
