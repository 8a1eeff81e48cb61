"""The case that records noise tables, conversions and Euler steps."""

from pathlib import Path

import torch
from flow_table import nearest_index, nearest_sigma, training_weights
from parity_report import Report
from torch import Tensor

from joyflash_cli.sampler.solver import (
    FlowMatchTable,
    add_noise,
    clean_from_flow,
    euler_step,
    flow_from_clean,
    flow_match_table,
)


def run_scheduler(directory: Path, case: dict, report: Report) -> None:
    """All tables and conversions, for every shift of the case."""
    report.use("clean", "noise", "flow", "xt")
    for shift in case["config"]["shifts"]:
        name = f"shift{shift:g}"
        table = flow_match_table(shift, num_steps=case["config"]["num_train_timesteps"])
        report.compare(f"{name}.train.sigmas", table.sigmas)
        report.compare(f"{name}.train.timesteps", table.timesteps)
        report.compare(f"{name}.train.weights", training_weights(table))
        for key, steps in case["step_lists"].items():
            warped = [float(table.timesteps[table.step_index(step)]) for step in steps]
            report.compare(f"{name}.warp.{key}", torch.tensor(warped))
        _compare_conversions(name, table, report)
        for num_steps in case["infer_steps"]:
            _compare_euler(f"{name}.infer{num_steps}", shift, num_steps, report)


def _compare_conversions(name: str, table: FlowMatchTable, report: Report) -> None:
    clean, noise, flow, xt = report.use("clean", "noise", "flow", "xt")
    (timesteps,) = report.use(f"{name}.timestep")
    index = nearest_index(table, timesteps)
    sigmas = nearest_sigma(table, timesteps)
    report.compare(f"{name}.nearest_index", index)
    report.compare(f"{name}.nearest_sigma", sigmas)
    report.compare(f"{name}.training_weight", training_weights(table)[index])
    report.compare(f"{name}.training_target", noise - clean)
    sigma = _per_row(sigmas, xt)
    report.compare(f"{name}.add_noise", add_noise(clean, noise, sigma))
    report.compare(f"{name}.x0_from_flow", clean_from_flow(xt, flow, sigma))
    report.compare(f"{name}.flow_from_x0", flow_from_clean(xt, clean, sigma))
    has_next = index < len(table.sigmas) - 1
    following = table.sigmas[index[has_next] + 1]
    stepped = euler_step(
        xt[has_next], flow[has_next], sigma[has_next], _per_row(following, xt[has_next])
    )
    report.compare(f"{name}.step", stepped)


def _compare_euler(name: str, shift: float, num_steps: int, report: Report) -> None:
    table = flow_match_table(shift, num_steps=num_steps)
    report.compare(f"{name}.sigmas", table.sigmas)
    report.compare(f"{name}.timesteps", table.timesteps)
    flow, xt = report.use("flow", "xt")
    x = xt[:1]
    ends = torch.cat((table.sigmas[1:], torch.zeros(1)))
    for sigma, following in zip(table.sigmas, ends, strict=True):
        x = euler_step(x, 0.7 * torch.tanh(x) + flow[:1], sigma, following)
    report.compare(f"{name}.euler_end", x)


def _per_row(values: Tensor, like: Tensor) -> Tensor:
    return values.reshape(-1, *[1] * (like.ndim - 1))
