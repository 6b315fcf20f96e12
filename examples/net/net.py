import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.net1 = nn.Linear(128, 128)
        self.relu = nn.ReLU()
        self.net2 = nn.Linear(128, 8)

    def forward(self, x):
        x = self.net1(x)
        x = self.relu(x)
        x = self.net2(x)
        return x


torch.manual_seed(0)
net = Net()
