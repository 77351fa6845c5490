"""What a run is: its spelling in paths and manifests, read back as it was."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from directcm.config import (
    ODE_AXES,
    RUN_AXES,
    SETTING_AXES,
    TEACHER_SEED,
    VARIED,
    Config,
    Ode,
    Run,
    Setting,
    number,
    parse,
    spell,
)
from directcm.config.base import Loss, Solver
from directcm.config.specs import METHODS
from directcm.errors import UserError

WHOLE = st.integers(1, 10**9)
VALUES = {
    "method": st.sampled_from(list(METHODS)),
    "solver": st.sampled_from(get_args(Solver)),
    "N": WHOLE,
    "w": st.floats(0, 100) | st.sampled_from([0.0001, 7.5, 1e-05, 3.0]),
    "adapter": st.just("full") | st.integers(1, 512).map(lambda rank: f"lora{rank}"),
    "loss": st.sampled_from(get_args(Loss)),
    "lr": st.floats(1e-12, 1e12) | st.sampled_from([0.0001, 7.5, 1e-05, 1e22]),
    "batch_size": WHOLE,
    "pool": WHOLE,
    "steps": WHOLE,
    "seed": st.integers(0, 2**63),
}
VARIATIONS = {
    "k": st.integers(1, 10**6),
    "density": st.just("uniform") | st.floats(1e-6, 1 - 1e-6),
    "weight": st.sampled_from(["one", "snr"]),
    "labels": st.sampled_from(["ode", "cm", "cm-full", "direct_then_cm-lora64"]),
    "ema": st.just(0.0) | st.floats(1e-6, 1 - 1e-6),
}
TEACHER_SEEDS = {TEACHER_SEED: st.just(0) | st.integers(1, 2**31)}
RUNS = st.fixed_dictionaries(VALUES | TEACHER_SEEDS | VARIATIONS).map(lambda values: Run(**values))
RUN = Config().runs()[0]
KEY = "method~cm,solver~ddim,N~50,w~3,adapter~lora4,loss~mse,lr~0.0001,batch_size~16,pool~4000,steps~250,seed~0"


def test_the_axes_and_their_order() -> None:
    assert tuple(VALUES) == RUN_AXES and RUN_AXES[1:-1] == SETTING_AXES and ODE_AXES == ("solver", "N", "w")
    assert RUN.key == KEY == f"method~cm,{RUN.setting.key},seed~0"
    assert RUN.ode.key == "solver~ddim,N~50,w~3" and RUN.ode.words == "solver = ddim, N = 50, w = 3"


@given(run=RUNS)
def test_what_is_spelled_is_read_back(run: Run) -> None:
    for kind, one in ((Run, run), (Setting, run.setting), (Ode, run.ode)):
        again = kind.parse(one.key)
        assert again == one and hash(again) == hash(one) and again.axes() == one.axes()
        # A path's part: no exponent, nothing that a folder's name cannot hold.
        assert one.key.startswith(f"teacher_seed~{run.teacher_seed}/") is ("/" in one.key) is (run.teacher_seed > 0)
        numbers = [text for name, text in one.spelled.items() if isinstance(one.axes()[name], int | float)]
        assert all(set(text) <= set("0123456789.") for text in numbers)
        # A manifest, which may hold more, and a row of a table.
        assert kind.of(json.loads(json.dumps({**one.axes(), "block": 3})), "manifest") == one
        assert kind.of({**one.spelled, "row": "CM"}, "row") == one


@given(one=RUNS, other=RUNS)
def test_equal_where_all_values_are(one: Run, other: Run) -> None:
    for a, b in ((one, other), (one.setting, other.setting), (one.ode, other.ode)):
        assert (a == b) is (a.axes() == b.axes()) is (a.key == b.key)
        assert len({a, b}) == 2 - (a == b)


def test_what_is_varied_is_spelled_where_it_is_not_at_its_default() -> None:
    assert tuple(VARIATIONS) == tuple(VARIED) and not {*VARIED} & {*RUN_AXES, *SETTING_AXES, *ODE_AXES}
    assert RUN.varied == {} and not {*VARIED} & {*RUN.axes(), *RUN.spelled}
    varied = RUN.at(k=5, density=0.25, weight="snr", labels="cm", ema=0.99)
    end = "+k~5+density~0.25+weight~snr+labels~cm+ema~0.99"
    assert varied.key == KEY + end and varied.setting.key == RUN.setting.key + end and varied.ode == RUN.ode
    assert varied.axes() == {**RUN.axes(), **varied.varied} and len(varied.varied) == 5
    assert varied.at(**VARIED) == RUN and Run.pattern().endswith("{seed}{varied}") and "{varied}" not in Ode.pattern()


def test_kinds_are_not_equal_and_values_stay() -> None:
    assert RUN.setting != RUN and RUN.ode != RUN.setting and RUN.ode == Ode() and RUN.ode.key == Config().ode.key
    with pytest.raises(ValueError, match="frozen"):
        RUN.seed = 1
    assert RUN.at(w="5", seed=2).key == KEY.replace("w~3", "w~5").replace("seed~0", "seed~2")
    assert RUN.at(w=5).but("w") == RUN.but("w") != RUN.at(w=5).but("N") and len(RUN.but("w", "N")) == 9


def test_the_teachers_seed_is_spelled_where_it_is_not_0() -> None:
    """Of the default teacher neither key nor manifest names it: what is there stays where it is, and as it is."""
    again = RUN.at(teacher_seed=7)
    assert TEACHER_SEED not in RUN.axes() and TEACHER_SEED not in RUN.spelled and RUN.redrawn == ""
    assert again.axes() == {**RUN.axes(), TEACHER_SEED: 7} and again.words == f"{RUN.words}, teacher_seed = 7"
    assert again.key == f"teacher_seed~7/{KEY}" and again.ode.key == f"teacher_seed~7/{RUN.ode.key}"
    assert again.setting.key == f"teacher_seed~7/{RUN.setting.key}" and again.setting != RUN.setting
    assert again.at(teacher_seed=0) == RUN and again.but(TEACHER_SEED) == RUN.but(TEACHER_SEED) == tuple(
        RUN.axes().values()
    )
    assert TEACHER_SEED not in {*RUN_AXES, *SETTING_AXES, *ODE_AXES}


@pytest.mark.parametrize(
    "key",
    [
        "",
        "cm",
        f"teacher_seed~0/{KEY}",
        f"teacher_seed~01/{KEY}",
        f"teacher_seed~-1/{KEY}",
        f"{KEY}/teacher_seed~1",
        f"teacher_seed~1,{KEY}",
        KEY + ",more~1",
        KEY + "+k~1",
        KEY + ",k~2",
        KEY + "+weight~one",
        KEY + "+density~2",
        KEY + "+labels~nobody",
        KEY + "+weight~snr+k~2",
        KEY.removesuffix(",seed~0"),
        KEY.replace("w~3", "w~3.0"),
        KEY.replace("lr~0.0001", "lr~1e-04"),
        KEY.replace("N~50", "N~050"),
        KEY.replace("N~50", "N~fifty"),
        KEY.replace("solver~ddim", "solver~rk4"),
        KEY.replace("seed~0", "seed~-1"),
        KEY.replace("method~cm,solver~ddim", "solver~ddim,method~cm"),
        KEY.replace("seed~0", "seed~0,seed~1"),
    ],
)
def test_a_malformed_key_is_named(key: str, one_line: Any) -> None:
    with pytest.raises(UserError) as error:
        Run.parse(key)
    assert repr(key) in one_line(error) and "method~…,solver~…,N~…" in str(error.value)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (None, "a/manifest.json: its run is None, expected method, solver, N"),
        ({**RUN.axes(), "N": "fifty"}, 'a/manifest.json: its run: N: is "fifty"'),
        ({**RUN.axes(), "N": True}, "a/manifest.json: its run: N: is true"),
        ({**RUN.axes(), "w": float("nan")}, "a/manifest.json: its run: w: is NaN"),
        (
            {"method": "cm", **RUN.ode.axes()},
            "a/manifest.json: its run lacks adapter, loss, lr, batch_size, pool, steps",
        ),
    ],
)
def test_what_is_no_run_is_one_line(found: Any, said: str, one_line: Any) -> None:
    with pytest.raises(UserError) as error:
        Run.of(found, "a/manifest.json: its run", "train it again")
    text = one_line(error)
    assert text.startswith(said) and text.endswith("; train it again")


def test_values_as_paths_spell_them() -> None:
    assert [number(x) for x in (3.0, 0.0001, 7.5, 1e-05, 1e22, 100)] == [
        "3", "0.0001", "7.5", "0.00001", "10000000000000000000000", "100",
    ]  # fmt: skip
    assert spell("1e-4") == spell(0.0001) == "0.0001" and spell("3") == spell(3.0) == spell(3) == "3"
    assert spell("lora4") == "lora4" and spell("") == ""


def test_a_run_that_is_asked_for_twice_is_there_once() -> None:
    config = parse(Config, {"students": [{"w": [3, 3.0, 5]}, {"seed": [0, 1]}]})
    assert [(run.method, run.w, run.seed) for run in config.runs()] == [
        ("cm", 3.0, 0), ("cm", 5.0, 0), ("direct_cm", 3.0, 0), ("direct_cm", 5.0, 0), ("cm", 3.0, 1), ("direct_cm", 3.0, 1),
    ]  # fmt: skip
