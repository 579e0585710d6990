"""Arrays sharded over eight devices: the unsharded answer, bit for bit, and each device runs its own rows only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest

import approxtopk as atk

from .jax_machines import MACHINES, Counted, counted, distinct, same

jax = pytest.importorskip("jax")
jnp = jax.numpy
P = jax.sharding.PartitionSpec

pytestmark = pytest.mark.skipif(jax.device_count("cpu") < 8, reason="needs eight devices: see conftest.py")

LINE = jax.sharding.Mesh(np.array(jax.devices("cpu")[:8]), ("r",))
GRID = jax.sharding.Mesh(np.array(jax.devices("cpu")[:8]).reshape(4, 2), ("a", "b"))
# Row shardings of a (16, 8, 24) array, and the part that a device then has.
ROWS = {
    "line": (LINE, P("r"), (2, 8, 24)),
    "second axis": (LINE, P(None, "r"), (16, 1, 24)),
    "grid": (GRID, P("a", "b"), (4, 4, 24)),
    "both on one": (GRID, P(("a", "b")), (2, 8, 24)),
    "one of two": (GRID, P("b"), (8, 8, 24)),
}


@pytest.fixture(params=MACHINES)
def machine(request: pytest.FixtureRequest) -> Iterator[Counted]:
    with counted(request.param) as runtime:
        yield runtime


def place(x: Any, mesh: Any, spec: Any) -> Any:
    return jax.device_put(x, jax.sharding.NamedSharding(mesh, spec))


def options(name: str) -> dict[str, Any]:
    return {"exact": {"recall_target": 1.0}, "bucketed": {"buckets": 6, "k_per_bucket": 1}}[name]


CHANGES = {
    "eager": lambda s: s,
    "jit": jax.jit,
    "of a product": lambda s: jax.jit(lambda x: s(x * 2)),
    "vmap": lambda s: jax.jit(jax.vmap(s)),
    "vmap of vmap": lambda s: jax.jit(jax.vmap(jax.vmap(s))),
    "scan": lambda s: jax.jit(lambda x: jax.lax.scan(lambda c, y: (c, s(y + c)), 0.0, jnp.stack([x, -x]))[1]),
    "ahead of time": lambda s: lambda x: jax.jit(s).lower(x).compile()(x),
}


@pytest.mark.parametrize(
    ("change", "rows"), [*((change, "grid") for change in CHANGES), *(("jit", rows) for rows in ROWS if rows != "grid")]
)
def test_each_device_selects_from_its_rows(change: str, rows: str, machine: Counted) -> None:
    mesh, spec, part = ROWS[rows]
    x = distinct(16, 8, 24)
    for name in ("exact", "bucketed"):

        def select(x: Any, name: str = name) -> Any:
            return tuple(atk.approx_top_k(x, 4, **options(name)))

        want = jax.block_until_ready(CHANGES[change](select)(jnp.asarray(x)))
        got, shapes = machine.during(CHANGES[change](select), place(x, mesh, spec))
        same(got, want)
        assert shapes == [part] * (16 if change == "scan" else 8)
        if change in ("eager", "jit"):
            assert all(a.sharding.is_equivalent_to(jax.sharding.NamedSharding(mesh, spec), 3) for a in got)


def test_a_planned_answer_is_the_same_alone_batched_mapped_and_sharded(machine: Counted) -> None:
    n, k = 40_000, 20
    assert atk.plan(n, k, recall_target=0.9).route == "bucketed"
    x = np.random.default_rng(0).standard_normal((8, n), np.float32)

    def select(x: Any) -> Any:
        return tuple(atk.approx_top_k(x, k, recall_target=0.9))

    want = jax.block_until_ready(select(jnp.asarray(x)))
    alone = [select(jnp.asarray(row)) for row in x]
    same(tuple(map(jnp.stack, zip(*alone, strict=True))), want)
    same(jax.vmap(select)(jnp.asarray(x)), want)
    got, shapes = machine.during(jax.jit(select), place(x, LINE, P("r")))
    same(got, want)
    assert shapes == [(1, n)] * 8


@pytest.mark.parametrize("rows", ["line", "grid"])
def test_derivatives(rows: str, machine: Counted) -> None:
    mesh, spec, part = ROWS[rows]
    x = distinct(16, 8, 24) / 8

    def cubes(x: Any) -> Any:
        return (atk.top_k(x, 4)[0] ** 3).sum()

    def theirs(x: Any) -> Any:
        return (jax.lax.top_k(x, 4)[0] ** 3).sum()

    for change in (jax.grad, lambda f: jax.jit(jax.grad(f)), lambda f: jax.jit(jax.vmap(jax.grad(f)))):
        want = change(theirs)(jnp.asarray(x))
        got, shapes = machine.during(change(cubes), place(x, mesh, spec))
        same(got, want)
        assert shapes == [part] * 8


@pytest.mark.parametrize("rows", ["second axis", "grid", "one of two"])
def test_bounds_are_sharded_alike(rows: str, machine: Counted) -> None:
    """However they come: sharded as x is, otherwise, or not at all."""
    mesh, spec, part = ROWS[rows]
    x = distinct(16, 8, 24)
    starts, lengths = (np.random.default_rng(i).integers(-3, 28, (16, 8)).astype(np.int32) for i in (0, 1))

    def select(x: Any, starts: Any, lengths: Any) -> Any:
        given = {"starts": starts, "lengths": lengths, "certify": True}
        return tuple(atk.approx_top_k(x, 4, **options("bucketed"), **given))

    want = jax.block_until_ready(select(*map(jnp.asarray, (x, starts, lengths))))
    for call in (select, jax.jit(select)):
        for bounds in (spec, P(), None):
            given = [jnp.asarray(a) if bounds is None else place(a, mesh, bounds) for a in (starts, lengths)]
            got, shapes = machine.during(call, place(x, mesh, spec), *given)
            same(got, want)
            assert shapes == [part] * 8


def test_in_and_out_shardings(machine: Counted) -> None:
    x, sharding = distinct(16, 24), jax.sharding.NamedSharding(LINE, P("r"))
    want = jax.lax.top_k(jnp.asarray(x), 4)

    def select(x: Any) -> Any:
        return list(atk.top_k(x, 4))

    for call in (
        jax.jit(select, in_shardings=sharding),
        jax.jit(select, out_shardings=sharding),
        jax.jit(lambda x: select(jax.lax.with_sharding_constraint(x, sharding))),
        lambda x: jax.jit(select, in_shardings=sharding)(place(x, LINE, P("r"))),
    ):
        got, shapes = machine.during(call, x)
        same(got, want)
        assert shapes == [(2, 24)] * 8


def test_rows_that_devices_do_not_divide(machine: Counted) -> None:
    x = jnp.asarray(distinct(13, 24))
    sharding = jax.sharding.NamedSharding(LINE, P("r"))
    call = jax.jit(lambda x: list(atk.top_k(jax.lax.with_sharding_constraint(x, sharding), 4)))
    got, shapes = machine.during(call, x)
    same(got, jax.lax.top_k(x, 4))
    assert shapes == [(2, 24)] * 8


def test_sharded_along_the_selected_axis(machine: Counted) -> None:
    """XLA gathers the rows that are cut: right, and stated to be dear. Other axes stay as they are."""
    x = distinct(16, 24)
    want = jax.lax.top_k(jnp.asarray(x), 4)
    for call in (lambda x: list(atk.top_k(x, 4)), jax.jit(lambda x: list(atk.top_k(x, 4)))):
        for mesh, spec, part in ((LINE, P(None, "r"), (16, 24)), (GRID, P("a", "b"), (4, 24))):
            got, shapes = machine.during(call, place(x, mesh, spec))
            same(got, want)
            assert shapes == [part] * 8
    same(atk.top_k(place(x[0], LINE, P("r")), 4), [a[0] for a in want])


def test_no_callback_of_another_is_called(machine: Counted) -> None:
    """Partitioned calls are lowered apart from the program: a callback's number there means another one here."""
    seen = []
    sharded = place(distinct(16, 24), LINE, P("r"))

    @jax.jit
    def both(x: Any) -> Any:
        seen_here = jax.pure_callback(lambda y: seen.append(1) or y, jax.ShapeDtypeStruct((), x.dtype), x[0, 0])
        return list(atk.top_k(x, 4)), list(atk.top_k(-x, 2)), seen_here

    (first, second, _), shapes = machine.during(both, sharded)
    same([first, second], [jax.lax.top_k(sharded, 4), jax.lax.top_k(-sharded, 2)])
    assert seen and shapes == [(2, 24)] * 16


@pytest.mark.skipif(not hasattr(jax, "shard_map"), reason="JAX of before jax.shard_map")
@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize("names", [{"a", "b"}, {"a"}], ids=["all axes", "some"])
def test_shard_map(names: Any, check: bool, machine: Counted) -> None:
    x = distinct(16, 24) / 8
    spec = P(tuple(sorted(names)))
    rows = 2 if len(names) == 2 else 4

    def mapped(f: Any, inputs: Any = spec, out: Any = spec) -> Any:
        mesh = {"mesh": GRID, "in_specs": inputs, "out_specs": out}
        return jax.shard_map(f, **mesh, axis_names=names, check_vma=check)

    got, shapes = machine.during(jax.jit(mapped(lambda x: list(atk.top_k(x, 4)))), x)
    same(got, jax.lax.top_k(x, 4))
    assert shapes == [(rows, 24)] * 8
    want = jax.grad(lambda x: (jax.lax.top_k(x, 4)[0] ** 3).sum())(jnp.asarray(x))
    inside = jax.jit(mapped(lambda x: jax.grad(lambda x: (atk.top_k(x, 4)[0] ** 3).sum())(x)))
    outside = jax.jit(jax.grad(lambda x: mapped(lambda x: atk.top_k(x, 4)[0] ** 3)(x).sum()))
    summed = mapped(lambda x: jax.lax.psum((atk.top_k(x, 4)[0] ** 3).sum(), tuple(sorted(names))), spec, P())
    vmapped = jax.jit(mapped(jax.vmap(jax.grad(lambda x: (atk.top_k(x, 4)[0] ** 3).sum()))))
    for call in (inside, outside, jax.jit(jax.grad(summed)), vmapped):
        got, shapes = machine.during(call, x)
        same(got, want)
        assert {(int(np.prod(s[:-1])), s[-1]) for s in shapes} == {(rows, 24)}
    # One length for all: it does not vary where x does.
    lengths = np.arange(rows, dtype=np.int32) + 3
    ragged = jax.jit(mapped(lambda x, n: tuple(atk.top_k(x, 4, lengths=n)), (spec, P())))(x, lengths)
    same(ragged, tuple(atk.top_k(jnp.asarray(x), 4, lengths=jnp.asarray(np.tile(lengths, 16 // rows)))))


def test_shard_map_over_some_axes_and_the_rest_automatic(machine: Counted) -> None:
    """Inside, XLA divides the rows among the devices of the other axis, however the arrays came."""
    x, lengths = distinct(16, 24), np.arange(16, dtype=np.int32)
    want = jax.block_until_ready(tuple(atk.top_k(jnp.asarray(x), 4, lengths=jnp.asarray(lengths))))
    for spec, other in ((P(("a", "b")), P()), (P(("a", "b")), P("a")), (P("a", "b"), P(("a", "b")))):
        call = jax.jit(
            jax.shard_map(
                lambda x, n: tuple(atk.top_k(x, 4, lengths=n)),
                mesh=GRID,
                in_specs=(P("a"), P("a")),
                out_specs=P("a"),
                axis_names={"a"},
            )
        )
        got, shapes = machine.during(call, place(x, GRID, spec), place(lengths, GRID, other))
        same(got, want)
        assert len(shapes) == 8 and (spec != P(("a", "b")) or shapes == [(2, 24)] * 8)


@pytest.mark.skipif(not hasattr(jax, "pmap"), reason="JAX without pmap")
def test_pmap(machine: Counted) -> None:
    x = jnp.asarray(distinct(8, 2, 24))
    got, shapes = machine.during(jax.pmap(lambda x: list(atk.top_k(x, 4))), x)
    same(got, jax.lax.top_k(x, 4))
    assert shapes == [(2, 24)] * 8


EXPLICIT = getattr(getattr(jax.sharding, "AxisType", None), "Explicit", None)


@pytest.mark.skipif(not hasattr(jax, "set_mesh"), reason="JAX of before jax.set_mesh")
@pytest.mark.parametrize("within", [True, False], ids=["set_mesh", "no mesh set"])
def test_shardings_that_are_types(within: bool, machine: Counted) -> None:
    mesh = jax.make_mesh((4, 2), ("a", "b"), axis_types=(EXPLICIT, EXPLICIT), devices=jax.devices("cpu")[:8])
    x = distinct(16, 8, 24) / 8
    lengths = np.random.default_rng(1).integers(-3, 28, (16, 8)).astype(np.int32)
    want = jax.lax.top_k(jnp.asarray(x), 4)
    slope = jax.grad(lambda x: (jax.lax.top_k(x, 4)[0] ** 3).sum())(jnp.asarray(x))
    ragged = jax.block_until_ready(tuple(atk.top_k(jnp.asarray(x), 4, lengths=jnp.asarray(lengths))))

    def select(x: Any) -> Any:
        return list(atk.top_k(x, 4))

    def cubes(x: Any) -> Any:
        return (atk.top_k(x, 4)[0] ** 3).sum()

    with jax.set_mesh(mesh) if within else nullcontext():
        for spec, part in ((P("a"), (4, 8, 24)), (P("a", "b"), (4, 4, 24)), (P(("a", "b")), (2, 8, 24))):
            given = place(x, mesh, spec)
            cases = [
                (select, want),
                (jax.jit(select), want),
                (jax.jit(jax.vmap(select)), want),
                (jax.jit(jax.grad(cubes)), slope),
                (jax.jit(jax.vmap(jax.grad(cubes))), slope),
                (jax.jit(lambda x: tuple(atk.top_k(x, 4, lengths=place(lengths, mesh, P())))), ragged),
            ]
            for call, wanted in cases:
                got, shapes = machine.during(call, given)
                same(got, wanted)
                assert shapes == [part] * 8
            typed = jax.typeof(jax.block_until_ready(jax.jit(select)(given))[0]).sharding.spec
            assert tuple(typed)[:2] == (*spec, None)[:2]
        with pytest.raises(
            atk.DeviceMismatch, match=r"x of type float32\[16,8,24@a\] is sharded along axis 2.*reshard"
        ):
            jax.jit(select)(place(x, mesh, P(None, None, "a")))
