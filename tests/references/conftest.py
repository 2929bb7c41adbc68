"""Online learning in numpy float64, written from the equations."""

import numpy as np
import pytest


def _softmax(logits):
    exp = np.exp(logits - logits.max())
    return exp / exp.sum()


def _gradient(params, x, label):
    """Logits of a classifier with ReLU layers [(W, b), ...], and the gradient of its cross entropy."""
    activations = [x]
    for number, (kernel, bias) in enumerate(params):
        x = x @ kernel + bias
        if number < len(params) - 1:
            x = np.maximum(x, 0)
        activations.append(x)
    delta = _softmax(activations[-1]) - np.eye(len(activations[-1]))[label]
    gradients = []
    for number in reversed(range(len(params))):
        gradients.insert(0, (np.outer(activations[number], delta), delta))
        delta = (params[number][0] @ delta) * (activations[number] > 0)
    return activations[-1], gradients


class SGD:
    def __init__(self, learning_rate):
        self.learning_rate = learning_rate

    def updates(self, params, gradients):
        return [-self.learning_rate * g for g in gradients]


class Adam:
    def __init__(self, learning_rate, eps_root=0.0, weight_decay=0.0):
        self.learning_rate, self.eps_root, self.weight_decay = learning_rate, eps_root, weight_decay
        self.step, self.first, self.second = 0, 0.0, 0.0

    def updates(self, params, gradients):
        self.step += 1
        if self.step == 1:
            self.first, self.second = ([np.zeros_like(g) for g in gradients] for _ in range(2))
        self.first = [0.9 * m + 0.1 * g for m, g in zip(self.first, gradients, strict=True)]
        self.second = [0.999 * v + 0.001 * g**2 for v, g in zip(self.second, gradients, strict=True)]
        c1, c2 = 1 - 0.9**self.step, 1 - 0.999**self.step
        return [
            -self.learning_rate * (m / c1 / (np.sqrt(v / c2 + self.eps_root) + 1e-8) + self.weight_decay * p)
            for m, v, p in zip(self.first, self.second, params, strict=True)
        ]


class Reference:
    SGD, Adam = SGD, Adam

    @staticmethod
    def learn(params, optimizer, inputs, labels):
        """Logits [T, C] of one sequence, each before the update on its own example."""
        params = [(np.array(kernel, np.float64), np.array(bias, np.float64)) for kernel, bias in params]
        logits = []
        for x, label in zip(inputs.astype(np.float64), labels, strict=True):
            prediction, gradients = _gradient(params, x, label)
            logits.append(prediction)
            flat, flat_gradients = ([a for pair in pairs for a in pair] for pairs in (params, gradients))
            flat = [p + u for p, u in zip(flat, optimizer.updates(flat, flat_gradients), strict=True)]
            params = list(zip(flat[::2], flat[1::2], strict=True))
        return np.array(logits)

    @staticmethod
    def layers(params):
        """The (W, b) of a classifier's flax parameters, first layer first."""
        return [(params[name]["kernel"], params[name]["bias"]) for name in sorted(params)]


@pytest.fixture
def reference():
    return Reference


@pytest.fixture
def sequences():
    rng = np.random.default_rng(0)
    return rng.normal(size=(3, 12, 5)).astype(np.float32), rng.integers(4, size=(3, 12))
