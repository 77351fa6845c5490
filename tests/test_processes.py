"""The VP process against diffusers' own schedules and the student's boundary in 2411.08954."""

from __future__ import annotations

import pytest
import torch

from directcm.config import Karras, Process
from directcm.diffusion.processes import VarianceExploding, VariancePreserving, expand, make
from directcm.errors import UserError
from directcm.runtime import rng

SDXL = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


@pytest.fixture(scope="module")
def process() -> VariancePreserving:
    return VariancePreserving.scaled_linear()


@pytest.mark.parametrize("name", ["DDPMScheduler", "EulerDiscreteScheduler", "DDIMScheduler"])
def test_alphas_are_those_of_diffusers(process: VariancePreserving, name: str) -> None:
    import diffusers

    theirs = getattr(diffusers, name).from_config(SDXL).alphas_cumprod.double()
    t = torch.arange(1, 1001)
    torch.testing.assert_close(process.alpha(t) ** 2, theirs, rtol=2e-5, atol=0)
    torch.testing.assert_close(process.sigma(t) ** 2, 1 - theirs, rtol=2e-5, atol=1e-7)
    torch.testing.assert_close(
        process.betas, getattr(diffusers, name).from_config(SDXL).betas.double(), rtol=1e-6, atol=0
    )


def test_ends_and_unit_variance(process: VariancePreserving) -> None:
    t = torch.arange(1001)
    alpha, sigma = process.alpha(t), process.sigma(t)
    assert alpha.dtype == sigma.dtype == torch.float64
    assert float(alpha[0]) == 1.0 and float(sigma[0]) == 0.0
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones(1001, dtype=torch.float64), rtol=0, atol=1e-15)
    assert float(alpha[1] ** 2) == pytest.approx(1 - 0.00085, abs=1e-15)
    assert float(alpha[1000] ** 2) == pytest.approx(0.00466, abs=5e-6)
    assert bool((alpha.diff() < 0).all()) and bool((sigma.diff() > 0).all())


def test_schedule_by_hand() -> None:
    process = VariancePreserving([0.1, 0.2])
    t = torch.tensor([0, 1, 2])
    torch.testing.assert_close(process.alpha(t) ** 2, torch.tensor([1, 0.9, 0.72], dtype=torch.float64))
    assert (process.start, process.end) == (2.0, 0.0)


def test_grid(process: VariancePreserving) -> None:
    assert process.grid(4).tolist() == [1000, 750, 500, 250, 0]
    assert process.grid(1).tolist() == [1000, 0]
    hundred = process.grid(100)
    assert len(hundred) == 101 and hundred[1] == 990 and hundred[-2] == 10
    assert process.grid(1000).tolist() == list(range(1000, -1, -1))


@pytest.mark.parametrize("intervals", [3, 7, 1001, 2000, 0, -5])
def test_grid_that_does_not_divide(process: VariancePreserving, intervals: int) -> None:
    with pytest.raises(UserError, match=f"N = {intervals} does not divide the process's 1000 time steps"):
        process.grid(intervals)


def test_boundary(process: VariancePreserving) -> None:
    c_skip, c_out = process.boundary(torch.tensor([0, 1, 1000]))
    assert (float(c_skip[0]), float(c_out[0])) == (1.0, 0.0)
    assert float(c_skip[1]) == pytest.approx(0.25 / 100.25, rel=1e-15)
    assert float(c_out[1]) == pytest.approx(10 / 100.25**0.5, rel=1e-15)
    assert float(c_skip[2]) == pytest.approx(0.25 / (10000.0**2 + 0.25), rel=1e-15)
    assert float(c_out[2]) == pytest.approx(1.0, abs=2e-9)


def test_network_time() -> None:
    t = torch.tensor([1000.0, 20.0, 1.0, 0.0])
    assert VariancePreserving.scaled_linear().network_time(t).tolist() == [999, 19, 0, 0]
    assert VariancePreserving.scaled_linear(time_input="one_based").network_time(t).tolist() == [1000, 20, 1, 0]
    with pytest.raises(ValueError, match="expected zero_based or one_based"):
        VariancePreserving([0.1], time_input="two_based")


@pytest.mark.parametrize("t", [-1, 1001, 0.5])
def test_times_off_the_grid(process: VariancePreserving, t: float) -> None:
    with pytest.raises(ValueError, match="integers from 0 to 1000"):
        process.alpha(torch.tensor([t]))


@pytest.mark.parametrize("betas", [[0.0], [1.0], [-0.1], [[0.1]], [float("nan")]])
def test_betas_out_of_range(betas: list) -> None:
    with pytest.raises(ValueError, match="betas"):
        VariancePreserving(betas)


def test_diffuse_and_clean_are_inverse(process: VariancePreserving) -> None:
    x0, eps = rng.normal(0, "x", range(4), (2, 3, 3)).double(), rng.normal(0, "e", range(4), (2, 3, 3)).double()
    t = torch.tensor([0.0, 1.0, 500.0, 1000.0])
    x = process.diffuse(x0, eps, t)
    assert torch.equal(x[0], x0[0])
    torch.testing.assert_close(x[2], process.alpha(t)[2] * x0[2] + process.sigma(t)[2] * eps[2])
    torch.testing.assert_close(process.clean(x, eps, t), x0, rtol=0, atol=1e-13)
    assert process.prior(eps) is eps


def test_velocity_by_hand(process: VariancePreserving) -> None:
    x, eps = torch.tensor([[2.0], [2.0], [2.0]]).double(), torch.tensor([[0.5], [0.5], [0.5]]).double()
    got = process.velocity(x, eps, torch.tensor([500.0, 1.0, 0.0]))
    beta, sigma = process.betas, process.sigma(torch.tensor([500, 1]))
    assert float(got[0]) == pytest.approx(float(-0.5 * beta[499] * 2 + 0.5 * beta[499] * 0.5 / sigma[0]), rel=1e-12)
    assert float(got[1]) == pytest.approx(float(-0.5 * beta[0] * 2 + 0.5 * beta[0] * 0.5 / sigma[1]), rel=1e-12)
    # The release's values at the end: β₀ and its σ₀, which is the noise of the first training step.
    assert float(got[2]) == float(got[1])


def test_expand_keeps_dtype_of_what_it_scales() -> None:
    out = expand(torch.tensor([1.0, 2.0], dtype=torch.float64), torch.zeros(2, 3, 4, 4))
    assert out.shape == (2, 1, 1, 1) and out.dtype == torch.float32


# ----------------------------------------------------------------- variance exploding


@pytest.fixture(scope="module")
def exploding() -> VarianceExploding:
    return VarianceExploding()


def test_karras_grid_is_that_of_diffusers(exploding: VarianceExploding) -> None:
    import diffusers

    scheduler = diffusers.EDMEulerScheduler(sigma_min=0.002, sigma_max=80.0, rho=7.0)
    scheduler.set_timesteps(18)
    grid = exploding.grid(17)
    torch.testing.assert_close(grid, scheduler.sigmas[:-1].double(), rtol=1e-5, atol=0)
    assert float(grid[0]) == 80.0 and float(grid[-1]) == 0.002 and bool((grid.diff() < 0).all())


def test_karras_grid_by_hand() -> None:
    # ρ = 1 is even spacing; ρ = 2 spaces the square roots evenly.
    assert VarianceExploding(9.0, 1.0, rho=1.0).grid(4).tolist() == [9, 7, 5, 3, 1]
    torch.testing.assert_close(VarianceExploding(9.0, 1.0, rho=2.0).grid(2), torch.tensor([9.0, 4, 1]).double())


@pytest.mark.parametrize("intervals", [0, -1])
def test_karras_grid_needs_an_interval(exploding: VarianceExploding, intervals: int) -> None:
    with pytest.raises(UserError):
        exploding.grid(intervals)


def test_karras_boundary_holds_at_epsilon_and_not_at_zero(exploding: VarianceExploding) -> None:
    skip, out = exploding.boundary(torch.tensor([0.002, 0.502, 80.0], dtype=torch.float64))
    assert (float(skip[0]), float(out[0])) == (1.0, 0.0)
    # t − ε = σ_d: half and half.
    assert float(skip[1]) == pytest.approx(0.5, abs=1e-7)
    assert float(out[1]) == pytest.approx(0.5 * 0.5 / (0.502**2 + 0.25) ** 0.5, rel=1e-6)
    assert float(skip[2]) == pytest.approx(0.25 / (79.998**2 + 0.25)) and float(out[2]) == pytest.approx(
        0.49998, rel=1e-4
    )


def test_karras_preconditioning_is_that_of_diffusers(exploding: VarianceExploding) -> None:
    import diffusers

    scheduler = diffusers.EDMEulerScheduler()
    t = torch.tensor([0.002, 0.5, 3.0, 80.0]).double()
    x, f = torch.ones(4, 1).double() * 2, torch.ones(4, 1).double() * 3
    skip, out = exploding.denoiser(t)
    for i in range(4):
        theirs = scheduler.precondition_outputs(x[i], f[i], t[i])
        torch.testing.assert_close(skip[i] * x[i] + out[i] * f[i], theirs, rtol=1e-6, atol=0)
        torch.testing.assert_close(exploding.input_scale(t)[i] * x[i], scheduler.precondition_inputs(x[i], t[i]))
        # Theirs is Karras's ¼ ln t; Song et al. multiply it with 1000.
        torch.testing.assert_close(
            exploding.network_time(t)[i], 1000 * torch.as_tensor(scheduler.precondition_noise(t[i]))
        )


def test_karras_input_has_unit_variance(exploding: VarianceExploding) -> None:
    t = torch.tensor([0.002, 1.0, 80.0])
    variance = exploding.sigma_data**2 + exploding.sigma(t) ** 2
    torch.testing.assert_close(exploding.input_scale(t) ** 2 * variance, torch.ones(3).double())
    x0, eps = rng.normal(0, "a", range(3), (2,)), rng.normal(0, "b", range(3), (2,))
    x = exploding.diffuse(x0, eps, t)
    torch.testing.assert_close(x, x0 + t[:, None] * eps)
    torch.testing.assert_close(exploding.clean(x, eps, t), x0, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(exploding.velocity(x, eps, t), (x - x0) / t[:, None], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(exploding.prior(eps), 80 * eps)


def test_a_time_that_two_karras_grids_share_is_one_number(exploding: VarianceExploding) -> None:
    """Errors by start time are joined over N by their time."""
    for coarse, fine in ((9, 18), (18, 72), (10, 1000), (7, 49)):
        assert torch.equal(exploding.grid(fine)[:: fine // coarse], exploding.grid(coarse))


def test_noise_between_two_steps(process: VariancePreserving, exploding: VarianceExploding) -> None:
    x, eps = rng.normal(0, "a", range(3), (2,)), rng.normal(0, "b", range(3), (2,))
    t = torch.tensor([0.002, 0.5, 80.0], dtype=torch.float64)
    got = exploding.renoise(x, eps, t)
    # Algorithm 1 of 2303.01469: at ε nothing is added, above it √(t² − ε²)·z.
    assert torch.equal(got[0], x[0])
    torch.testing.assert_close(got[1], x[1] + (0.25 - 4e-6) ** 0.5 * eps[1])
    steps = torch.tensor([1.0, 500.0, 1000.0])
    assert torch.equal(process.renoise(x, eps, steps), process.diffuse(x, eps, steps))


def test_output_scales_are_the_denoisers(process: VariancePreserving, exploding: VarianceExploding) -> None:
    """ε̂ = (x − D)/t with D = c_skip·x + c_out·F; where that does not cancel, the same numbers."""
    t = torch.tensor([0.3, 2.0, 80.0], dtype=torch.float64)
    (own, network), (skip, out) = exploding.output_scales(t), exploding.denoiser(t)
    torch.testing.assert_close(own, (1 - skip) / t)
    torch.testing.assert_close(network, -out / t)
    assert [s.tolist() for s in process.output_scales(torch.tensor([0.0, 7.0]))] == [[0, 0], [1, 1]]


def test_configured_processes() -> None:
    made = make(Process(kind="karras", karras=Karras(sigma_min=0.01, sigma_max=50, rho=5, sigma_data=0.7)))
    assert isinstance(made, VarianceExploding)
    assert (made.start, made.end, made.rho, made.sigma_data) == (50, 0.01, 5, 0.7)
    other = make(Process(timesteps=500, time_input="one_based"))
    assert isinstance(other, VariancePreserving) and other.start == 500 and other.time_input == "one_based"


def test_a_karras_student_is_song_s_parameterisation_of_the_network(exploding: VarianceExploding) -> None:
    """f = c_skip·x + c_out·F, where the network's F gives D = c_skip'·x + c_out'·F (Song et al., Appendix C; Karras et al., Table 1)."""
    t = torch.tensor([0.002, 0.1, 1.0, 80.0], dtype=torch.float64)
    x, network = torch.tensor([0.3, -1.0, 2.0, 50.0]).double(), torch.tensor([0.7, 0.2, -0.4, 1.1]).double()
    skip, out = exploding.denoiser(t)
    clean = skip * x + out * network
    own, b = exploding.student(t)
    c_skip, c_out = exploding.boundary(t)
    torch.testing.assert_close(own * x + b * clean, c_skip * x + c_out * network, rtol=1e-12, atol=1e-12)
    assert float(own[0]) == 1 and float(b[0]) == 0
