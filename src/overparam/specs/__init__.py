"""Frozen, validated descriptions of runs and studies."""

from overparam.specs.run import CNN as CNN
from overparam.specs.run import MLP as MLP
from overparam.specs.run import SGD as SGD
from overparam.specs.run import Adam as Adam
from overparam.specs.run import DataSpec as DataSpec
from overparam.specs.run import Dense as Dense
from overparam.specs.run import Fresh as Fresh
from overparam.specs.run import Magnitude as Magnitude
from overparam.specs.run import RandomMask as RandomMask
from overparam.specs.run import Rewind as Rewind
from overparam.specs.run import RunSpec as RunSpec
from overparam.specs.run import ShuffledMask as ShuffledMask
from overparam.specs.run import TrainSpec as TrainSpec
from overparam.specs.study import Arm as Arm
from overparam.specs.study import Cell as Cell
from overparam.specs.study import Claim as Claim
from overparam.specs.study import Design as Design
from overparam.specs.study import Difference as Difference
from overparam.specs.study import Level as Level
from overparam.specs.study import Metric as Metric
from overparam.specs.study import Point as Point
from overparam.specs.study import Preset as Preset
from overparam.specs.study import Slope as Slope
from overparam.specs.study import Study as Study
