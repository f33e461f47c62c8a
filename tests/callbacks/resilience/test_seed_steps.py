from __future__ import annotations

from types import SimpleNamespace

import torch

from flowers.callbacks import SeedSteps


def first_numbers(seed, *, steps, process=0):
    """Return the first random number of each step."""
    torch.manual_seed(seed)
    seeding = SeedSteps()
    seeding.on_fit_start(None, None)
    numbers = []
    for step in steps:
        torch.rand(step + 1)  # as many as another run may have drawn before
        fit_loop = SimpleNamespace(total_batch_idx=step)
        trainer = SimpleNamespace(fit_loop=fit_loop, global_rank=process)
        seeding.on_train_batch_start(trainer, None, None, step)
        numbers.append(float(torch.rand(())))
    return numbers


def test_a_run_that_starts_at_a_later_step_has_the_same_numbers():
    assert first_numbers(1, steps=[3, 4]) == first_numbers(1, steps=range(5))[3:]


def test_steps_processes_and_seeds_have_different_numbers():
    numbers = first_numbers(1, steps=range(5))
    numbers += first_numbers(1, steps=range(5), process=1)
    numbers += first_numbers(2, steps=range(5))
    assert len(set(numbers)) == 15
