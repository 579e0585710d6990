"""What an installed approxtopk must do with nothing but NumPy beside it. Run it outside the checkout."""

import contextlib
import importlib.metadata
import io
import sys
from importlib.resources import files

import numpy as np

import approxtopk as atk
from approxtopk.cli import main

assert "site-packages" in atk.__file__, atk.__file__
assert importlib.metadata.version("approxtopk") == atk.__version__
assert files("approxtopk.kernels").joinpath("bucket_walk.cu").is_file()

x = np.random.default_rng(0).standard_normal((4, 100_000), dtype=np.float32)
best = np.argsort(-x, axis=-1, kind="stable")[:, :16]
exact = atk.top_k(x, 16)
np.testing.assert_array_equal(exact.indices, best)
np.testing.assert_array_equal(exact.values, np.take_along_axis(x, best, -1))
found = atk.approx_top_k(x, 16, recall_target=0.9)
np.testing.assert_array_equal(found.values, np.take_along_axis(x, found.indices, -1))
assert np.mean(found.values >= exact.values[:, -1:]) > 0.6

here = atk.plan((4, 100_000), 16)
there = atk.plan((4, 100_000), 16, device="sm_90")
assert (here.route, here.buckets, here.k_per_bucket) == (there.route, there.buckets, there.k_per_bucket)
assert there.launches >= 1

for arguments in (["plan", "4x100000", "16"], ["plan", "100000", "16", "--device", "sm_80"], ["info"]):
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert main(arguments) == 0, arguments
    assert out.getvalue(), arguments
for arguments in (["plan", "10", "11"], ["demo"]):  # k > n; scikit-learn is absent
    with contextlib.redirect_stderr(io.StringIO()) as error:
        assert main(arguments) == 2, arguments
    assert len(error.getvalue().splitlines()) == 1, error.getvalue()

assert not {"cupy", "jax", "torch"} & sys.modules.keys()
print(f"approxtopk {atk.__version__}, NumPy {np.__version__}: ok")
