"""The quality head: a small regressor from an image embedding to a score, in the LAION aesthetic predictor's form.

Architecture and weight names are those of the published `sac+logos+ava1-l14-linearMSE.pth` (Schuhmann 2022): five
linear layers with dropout after the first three and no activations, on the L2-normalised embedding.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from directcm.errors import UserError


class QualityHead(nn.Module):
    """Embeddings (n, size) → scores (n,). The parameters are named layers.0, 2, 4, 6 and 7, as the published ones."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(size, 1024),
            nn.Dropout(0.2),
            nn.Linear(1024, 128),
            nn.Dropout(0.2),
            nn.Linear(128, 64),
            nn.Dropout(0.1),
            nn.Linear(64, 16),
            nn.Linear(16, 1),
        )

    def forward(self, embedding: Tensor) -> Tensor:
        """Normalise the embeddings (n, size), which need not be, and score them, (n,)."""
        return self.layers(nn.functional.normalize(embedding, dim=-1)).squeeze(-1)


def head_from_state(state: Mapping[str, Tensor], where: str) -> QualityHead:
    """The head of a state dict, in evaluation mode; a state dict of another architecture is a UserError."""
    first = state.get("layers.0.weight")
    head = QualityHead(int(first.shape[1]) if first is not None and first.dim() == 2 else 1)
    try:
        head.load_state_dict(dict(state))
    except RuntimeError:
        raise UserError(
            f"{where}: not the weights of an aesthetic head (layers 0, 2, 4, 6, 7 of sizes D-1024-128-64-16-1)"
        ) from None
    return head.eval()
