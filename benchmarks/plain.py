"""What a first script does, for the benchmarks' plain arms."""

from __future__ import annotations

from torch import Tensor

from directcm.diffusion.teachers import Conditioning, Prediction, Teacher


class TwoForwards(Teacher):
    """Mixed into a teacher: guidance in two forwards."""

    def predict(self, x: Tensor, t: Tensor, cond: Conditioning | None, guidance: float = 1.0) -> Prediction:
        eps = self.noise(x, t, cond).float()
        if guidance != 1.0:
            without = self.noise(x, t, self.unconditional(cond)).float()
            eps = without + guidance * (eps - without)
        return Prediction(self.process.clean(x, eps, t), eps)
