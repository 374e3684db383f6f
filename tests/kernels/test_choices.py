"""Choices between kernels: values by processor, forcing and restoring options, and invalid arguments."""

import pickle
from collections.abc import Iterator

import pytest
import torch

import funcnet as fn
from funcnet.kernels import choices, processor
from funcnet.kernels.choices import CHOICES, NEVER, choice, forced, set_choice, values_on
from funcnet.kernels.private_names import HAS_ONEDNN
from funcnet.kernels.processor import Processor, processor_of, this_processor

EPYC = Processor("amd", avx512=True, bf16=True)
ZEN_5 = Processor("amd", avx512=True, bf16=True, vp2intersect=True)
XEON = Processor("intel", avx512=True)
SAPPHIRE_RAPIDS = Processor("intel", avx512=True, bf16=True, amx=True)
GRAVITON = Processor("arm", bf16=True)
UNKNOWN = Processor("other")
PROCESSORS = {
    "EPYC": EPYC,
    "Zen 5": ZEN_5,
    "Xeon": XEON,
    "Xeon with AMX": SAPPHIRE_RAPIDS,
    "Graviton": GRAVITON,
    "unknown": UNKNOWN,
}


@pytest.fixture
def trial() -> Iterator[choices.Choice]:
    """Register a choice for one test."""
    one = choice("trial", {"small": NEVER, "large": 0}, lambda cpu: 100 if cpu.avx512 else NEVER, "elements")
    yield one
    del choices._entered["trial"]
    choices._state[0] = 0


@pytest.mark.parametrize("cpu", PROCESSORS.values(), ids=PROCESSORS)
def test_a_rule_depends_on_the_processor_only(cpu):
    """Each choice has an integer value on each processor, which is the same each time."""
    values = values_on(cpu)
    assert values == values_on(pickle.loads(pickle.dumps(cpu)))
    assert values.keys() == CHOICES.keys()
    assert all(type(value) is int and 0 <= value <= NEVER for value in values.values())


def test_amd_takes_onednn_for_what_is_large():
    """AMD with AVX-512 uses oneDNN for large sizes; other processors only if a docstring documents a measurement."""
    for cpu, count in ((EPYC, 8_000_000), (ZEN_5, 2_000_000)):
        large = [f"onednn from {count} multiplications on", "onednn from 12000 elements on"] if HAS_ONEDNN else ["mkl", "torch"]
        assert [CHOICES[name].describe(values_on(cpu)[name]) for name in ("matrix products", "tanh")] == large
    for cpu in (Processor("amd"), GRAVITON, UNKNOWN):
        assert CHOICES["matrix products"].option_on(cpu) == "mkl"
        assert CHOICES["tanh"].option_on(cpu) == "torch"


def test_this_process_takes_the_values_of_this_processor():
    """The values are set at import, and restored after each block that forces others."""
    assert {name: one.value for name, one in CHOICES.items()} == values_on(this_processor())


def test_forced_takes_an_option_and_goes_back(trial):
    """A choice is forced by name, number or rule; blocks can be nested, and restore values after an error too."""
    rule = trial.value
    with forced("trial", "large") as one:
        assert one is trial
        assert (trial.value, trial.option) == (0, "large")
        with forced("trial", 7):
            assert (trial.value, trial.option, repr(trial)) == (7, "by size", "Choice('trial': large from 7 elements on)")
            with forced("trial", "auto"):
                assert trial.value == rule
        assert trial.value == 0
    with pytest.raises(RuntimeError, match="stop"), forced("trial", "small"):
        raise RuntimeError("stop")
    assert trial.value == rule
    set_choice("trial", "small")
    assert trial.value == NEVER
    set_choice("trial", "auto")
    assert trial.value == rule


def test_the_state_of_all_choices_tells_programs_apart(trial):
    """The state differs for different values, and is equal for equal ones."""
    before, seen = choices.state(), {}
    for option in ("small", "large", 7, "small", "large", 7):
        with forced("trial", option):
            assert seen.setdefault(option, choices.state()) == choices.state()
    assert choices.state() == before
    assert len({before, *seen.values()}) >= 3


@pytest.mark.parametrize("how", [set_choice, lambda *given: forced(*given).__enter__()], ids=["set_choice", "forced"])
def test_unknown_choices_and_options_are_refused(how, trial):
    """The message lists the known choices or options."""
    with pytest.raises(ValueError, match=r"the choice must be one of .*'matrix products', .*'trial'.*, got 'tanhh'"):
        how("tanhh", "torch")
    rule = "the option of 'trial' must be one of 'auto', 'small', 'large', or a number of elements, got"
    for option in ("huge", -1, 0.5, True, None):
        with pytest.raises(ValueError, match=rule):
            how("trial", option)
    with pytest.raises(ValueError, match="the option of 'attention' must be one of 'auto', 'formula', 'flash', got 3"):
        how("attention", 3)


def test_a_choice_is_entered_once_with_two_options(trial):
    """A second choice with the same name is refused, and so is a choice with a single option."""
    with pytest.raises(ValueError, match=r"choice: each choice must have a unique name, got 'trial'"):
        choice("trial", {"a": NEVER, "b": 0}, lambda cpu: 0)
    with pytest.raises(ValueError, match=r"choice: a choice must have at least two options, got {'a': 0}"):
        choice("another", {"a": 0}, lambda cpu: 0)
    assert "another" not in CHOICES


@pytest.mark.compiled
def test_compiled_code_follows_a_choice(trial):
    """A different value compiles a different program, and the first one is reused afterwards. Compiled code cannot force."""
    torch.compiler.reset()
    graphs = []
    backend = lambda graph, examples: graphs.append(graph) or graph
    fast = torch.compile(lambda x: x + 1 if x.numel() < trial.value else x + 2, fullgraph=True, backend=backend)
    for option, want in (("small", 1), ("large", 2), (5, 2), (11, 1), ("small", 1)):
        with forced("trial", option):
            assert fast(torch.zeros(10))[0] == want
    assert len(graphs) >= 2

    def forcing(x):
        with forced("trial", "large"):
            return x + 1

    with pytest.raises(Exception, match="forced: choices must be set outside of compiled code, got 'trial'"):
        torch.compile(forcing, fullgraph=True, backend=backend)(torch.zeros(10))


@pytest.mark.parametrize("change", [set_choice, lambda name, option: forced(name, option).__enter__()])
def test_a_choice_that_is_not_entered_yet_is_refused_within_compiled_code_too(change):
    """The message is the same; compiled code does not search the table, which would import modules."""
    with pytest.raises(Exception, match="choices must be set outside of compiled code, got 'not entered'"):
        torch.compile(lambda x: (change("not entered", "small"), x)[1], fullgraph=True, backend="eager")(torch.zeros(2))


LINUX = "processor : 0\nvendor_id : {}\nmodel name : a processor\nflags : fpu {}\n\nprocessor : 1\nflags : other\n"
FULL = "avx512f avx512_bf16 amx_bf16 amx_tile"
ARM = "processor : 0\nFeatures : fp asimd bf16\nCPU implementer : 0x41\n"


@pytest.mark.parametrize(
    ("cpuinfo", "capability", "machine", "want"),
    [
        (LINUX.format("AuthenticAMD", "avx512f avx512_bf16"), "AVX512", "x86_64", EPYC),
        (LINUX.format("AuthenticAMD", "avx512f avx512_bf16 avx512_vp2intersect"), "AVX512", "x86_64", ZEN_5),
        (LINUX.format("AuthenticAMD", "avx512f avx512_vp2intersect"), "AVX2", "x86_64", Processor("amd")),
        (LINUX.format("GenuineIntel", "avx512f"), "AVX512", "x86_64", XEON),
        (LINUX.format("GenuineIntel", FULL), "AVX512", "x86_64", SAPPHIRE_RAPIDS),
        (LINUX.format("GenuineIntel", FULL), "AVX2", "x86_64", Processor("intel")),
        (LINUX.format("HygonGenuine", "avx512f"), "AVX512", "x86_64", Processor("other", avx512=True)),
        (ARM, "DEFAULT", "aarch64", GRAVITON),
        ("", "DEFAULT", "arm64", Processor("arm")),
        ("", "AVX512", "AMD64", Processor("other", avx512=True)),
        ("nothing of the kind", "NO AVX", "", UNKNOWN),
    ],
)
def test_processors_are_read(cpuinfo, capability, machine, want):
    """The flags come from Linux, limited to what torch uses: ``ATEN_CPU_CAPABILITY=avx2`` rules out AVX-512."""
    assert processor_of(cpuinfo, capability, machine) == want


def test_a_system_without_cpuinfo_has_a_processor(monkeypatch, tmp_path):
    """Reading the file can fail with any error."""
    for path in (tmp_path / "nowhere", tmp_path):
        monkeypatch.setattr(processor, "_CPUINFO", path)
        assert isinstance(this_processor.__wrapped__(), Processor)


def test_a_processor_is_a_checked_value():
    """Its repr is its constructor call, and unknown makers and flags are refused."""
    assert eval(repr(EPYC)) == EPYC == fn.kernels.Processor("amd", avx512=True, bf16=True)
    with pytest.raises(ValueError, match="maker must be one of 'amd', 'intel', 'arm', 'other', got 'via'"):
        Processor("via")
    with pytest.raises(ValueError, match="amx must be True or False, got 1"):
        Processor("intel", amx=1)
