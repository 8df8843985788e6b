"""AFD in PyTorch as a practised user writes it: channels last, the same networks.

Two versions: "shared" takes both gradients from one forward pass, "fresh" computes the
maps again after the logit update. Run as a program, it makes steps on demand: see
`Steps`.
"""

import json
import os
import subprocess
import sys
import time

BATCH_NORM = {"eps": 1e-5, "momentum": 0.1}


class Steps:
    """Steps of a version in a process of its own, which sleeps in between.

    Args:
        version: "fresh" or "shared".
        precision: "float32" or "bfloat16" (autocast).
        batch_size: int.

    Attributes:
        parameters: list of int, how many each network, transfer layer and discriminator
            has.
        threads: int, with how many threads PyTorch computes an operation.
    """

    def __init__(self, version, precision, batch_size):
        self._process = subprocess.Popen(
            [sys.executable, __file__, version, precision, str(batch_size)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        told = self._read()
        self.parameters, self.threads = told["parameters"], told["threads"]

    def __call__(self):
        """Make a step; return the seconds it took."""
        print(file=self._process.stdin, flush=True)
        return float(self._read())

    def close(self):
        """End the process."""
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def _read(self):
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"PyTorch's process ended with {self._process.wait()}.")
        return json.loads(line)


def processors():
    """Return how many processors this process may use, as TensorFlow counts them."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def main(version, precision, batch_size):
    """Make a step for each line of the standard input and print its seconds."""
    import torch

    # What TensorFlow does by itself, whatever OMP_NUM_THREADS says.
    torch.set_num_threads(processors())
    torch.set_flush_denormal(True)
    torch.manual_seed(0)
    images = torch.randn(int(batch_size), 3, 32, 32)
    images = images.to(memory_format=torch.channels_last)
    labels = torch.randint(0, 100, (int(batch_size),))
    afd = build(bfloat16=precision == "bfloat16")
    parts = [*afd.networks, *afd.transfers, *afd.discriminators]
    counts = [sum(p.numel() for p in part.parameters()) for part in parts]
    told = {"parameters": counts, "threads": torch.get_num_threads()}
    print(json.dumps(told), flush=True)
    step = {"fresh": afd.fresh_step, "shared": afd.shared_step}[version]
    for _ in sys.stdin:
        begun = time.perf_counter()
        float(step(images, labels))
        print(time.perf_counter() - begun, flush=True)


def build(bfloat16=False):
    """Build the networks, transfer layers, discriminators and optimizers.

    Returns:
        Object with `fresh_step(images, labels)` and `shared_step(images, labels)`.
    """
    import torch
    import torch.nn.functional as F
    from torch import nn

    def convolution(inputs, outputs, kernel=3, stride=1):
        pad = kernel // 2
        return nn.Conv2d(inputs, outputs, kernel, stride, pad, bias=False)

    def norm(channels, **options):
        return nn.BatchNorm2d(channels, **BATCH_NORM, **options)

    def mean(maps):
        # Unlike that of `Tensor.mean`, its gradient is channels last.
        return F.adaptive_avg_pool2d(maps.float(), 1).flatten(1)

    class Basic(nn.Module):
        def __init__(self, inputs, outputs, stride):
            super().__init__()
            self.conv1 = convolution(inputs, outputs, stride=stride)
            self.norm1 = norm(outputs)
            self.conv2 = convolution(outputs, outputs)
            self.norm2 = norm(outputs)
            self.stride, self.more = stride, outputs - inputs

        def forward(self, x):
            y = F.relu(self.norm1(self.conv1(x)), inplace=True)
            y = self.norm2(self.conv2(y))
            if self.stride > 1:
                x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, self.more))
            return F.relu(x + y, inplace=True)

    class PreActivated(nn.Module):
        def __init__(self, inputs, outputs, stride):
            super().__init__()
            self.norm1 = norm(inputs)
            self.conv1 = convolution(inputs, outputs, stride=stride)
            self.norm2 = norm(outputs)
            self.conv2 = convolution(outputs, outputs)
            same = inputs == outputs and stride == 1
            self.shortcut = None if same else convolution(inputs, outputs, 1, stride)

        def forward(self, x):
            y = F.relu(self.norm1(x), inplace=True)
            if self.shortcut is not None:
                x = self.shortcut(y)
            y = F.relu(self.norm2(self.conv1(y)), inplace=True)
            return x + self.conv2(y)

    def stages(block, widths, blocks):
        layers, inputs = [], 16
        for stage, outputs in enumerate(widths):
            for number in range(blocks):
                stride = 2 if stage and not number else 1
                layers.append(block(inputs, outputs, stride))
                inputs = outputs
        return layers

    class Network(nn.Module):
        def __init__(self, extractor, channels):
            super().__init__()
            self.extractor = nn.Sequential(*extractor)
            self.logits = nn.Linear(channels, 100)

        def head(self, maps):
            with torch.autocast("cpu", enabled=False):
                return self.logits(mean(maps))

    def relu():
        return nn.ReLU(inplace=True)

    def resnet20():
        stem = [convolution(3, 16), norm(16), relu()]
        return Network([*stem, *stages(Basic, (16, 32, 64), 3)], 64)

    def wrn16_2():
        body = stages(PreActivated, (32, 64, 128), 2)
        return Network([convolution(3, 16), *body, norm(128), relu()], 128)

    class Discriminator(nn.Module):
        def __init__(self, inputs):
            super().__init__()
            layers = []
            for outputs, stride in ((64, 2), (128, 2), (256, 1)):
                layers += [
                    convolution(inputs, outputs, stride=stride),
                    norm(outputs, track_running_stats=False),
                    nn.LeakyReLU(0.2, inplace=True),
                ]
                inputs = outputs
            self.blocks = nn.Sequential(*layers)
            self.dense = nn.Linear(inputs, 1)

        def forward(self, maps):
            pooled = mean(self.blocks(maps))
            with torch.autocast("cpu", enabled=False):
                return torch.sigmoid(self.dense(pooled))

    def last(modules):
        return nn.ModuleList(modules).to(memory_format=torch.channels_last)

    class AFD:
        def __init__(self):
            self.networks = last([resnet20(), wrn16_2()])
            self.transfers = last([nn.Conv2d(64, 128, 1), nn.Conv2d(128, 128, 1)])
            self.discriminators = last([Discriminator(128), Discriminator(128)])
            self.generators = [
                *(p for n in self.networks for p in n.extractor.parameters()),
                *self.transfers.parameters(),
            ]
            self.logit = torch.optim.SGD(
                self.networks.parameters(),
                lr=0.1,
                momentum=0.9,
                weight_decay=1e-4,
                nesterov=True,
                fused=True,
            )
            slow = {"lr": 2e-5, "weight_decay": 0.1, "fused": True}
            self.feature = torch.optim.Adam(self.generators, **slow)
            self.discriminator = torch.optim.Adam(
                self.discriminators.parameters(), **slow
            )
            modules = self.networks.modules()
            self.norms = [m for m in modules if isinstance(m, nn.BatchNorm2d)]

        def half(self):
            return torch.autocast("cpu", torch.bfloat16, enabled=bfloat16)

        def maps(self, images):
            with self.half():
                return [network.extractor(images) for network in self.networks]

        def logit_loss(self, maps, labels, temperature=3.0):
            logits = [n.head(h) for n, h in zip(self.networks, maps, strict=True)]
            loss = 0.0
            for k in (0, 1):
                source = F.softmax(logits[k - 1].detach() / temperature, 1)
                own = F.log_softmax(logits[k] / temperature, 1)
                kl = F.kl_div(own, source, reduction="batchmean")
                loss = loss + F.cross_entropy(logits[k], labels)
                loss = loss + temperature**2 * kl
            return loss

        def transferred(self, maps):
            with self.half():
                return [t(h) for t, h in zip(self.transfers, maps, strict=True)]

        def discriminator_loss(self, transferred):
            loss = 0.0
            with self.half():
                for k, discriminator in enumerate(self.discriminators):
                    real = discriminator(transferred[k - 1])
                    own = discriminator(transferred[k])
                    loss = loss + ((1 - real) ** 2).mean() + (own**2).mean()
            return loss

        def update_discriminators(self, transferred):
            self.discriminator.zero_grad()
            self.discriminator_loss([t.detach() for t in transferred]).backward()
            self.discriminator.step()

        def generator_loss(self, transferred):
            with self.half():
                pairs = zip(self.discriminators, transferred, strict=True)
                outputs = [discriminator(t) for discriminator, t in pairs]
            return sum(((1 - output) ** 2).mean() for output in outputs)

        def fresh_step(self, images, labels):
            loss = self.logit_loss(self.maps(images), labels)
            self.logit.zero_grad()
            loss.backward()
            self.logit.step()
            # The second forward pass moves no running statistics.
            for module in self.norms:
                module.momentum = 0.0
            transferred = self.transferred(self.maps(images))
            for module in self.norms:
                module.momentum = BATCH_NORM["momentum"]
            self.update_discriminators(transferred)
            self.discriminators.requires_grad_(False)
            self.feature.zero_grad()
            self.generator_loss(transferred).backward()
            self.feature.step()
            self.discriminators.requires_grad_(True)
            return loss.detach()

        def shared_step(self, images, labels):
            maps = self.maps(images)
            loss = self.logit_loss(maps, labels)
            self.logit.zero_grad()
            loss.backward(retain_graph=True)
            transferred = self.transferred(maps)
            self.update_discriminators(transferred)
            self.discriminators.requires_grad_(False)
            generator_loss = self.generator_loss(transferred)
            gradients = torch.autograd.grad(generator_loss, self.generators)
            self.logit.step()
            for parameter, gradient in zip(self.generators, gradients, strict=True):
                parameter.grad = gradient
            self.feature.step()
            self.discriminators.requires_grad_(True)
            return loss.detach()

    return AFD()


if __name__ == "__main__":
    main(*sys.argv[1:])
