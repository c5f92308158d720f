"""Frozen, validated descriptions of runs."""

from overparam.specs.data import DataSpec as DataSpec
from overparam.specs.models.cnn import CNN as CNN
from overparam.specs.models.mlp import MLP as MLP
from overparam.specs.optimizers import SGD as SGD
from overparam.specs.optimizers import Adam as Adam
from overparam.specs.run import Dense as Dense
from overparam.specs.run import Fresh as Fresh
from overparam.specs.run import Magnitude as Magnitude
from overparam.specs.run import RandomMask as RandomMask
from overparam.specs.run import Rewind as Rewind
from overparam.specs.run import RunSpec as RunSpec
from overparam.specs.run import SameSigns as SameSigns
from overparam.specs.run import ShuffledMask as ShuffledMask
from overparam.specs.train import TrainSpec as TrainSpec
