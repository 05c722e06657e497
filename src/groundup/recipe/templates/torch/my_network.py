"""A network of your own.  The constructor is its configuration; groundup fills in the sizes that the data decides."""

from torch import Tensor, nn


class MyNetwork(nn.Module):
    """Two hidden layers over the flattened image.

    Args:
        input_shape: (channels, height, width), filled in from the data.
        n_outputs: number of classes, filled in from the data.
        width: units of each hidden layer; write it in the recipe to change it.
    """

    def __init__(self, input_shape: tuple[int, ...], n_outputs: int, width: int = 64) -> None:
        super().__init__()
        channels, height, breadth = input_shape
        self.layers = nn.Sequential(
            nn.Flatten(),
            nn.Linear(channels * height * breadth, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, n_outputs),
        )

    def forward(self, features: Tensor) -> Tensor:
        """(N, *input_shape) to logits (N, n_outputs)."""
        logits: Tensor = self.layers(features)
        return logits
