"""The data of the command tests."""

DATA = "synthetic:size=32x48,train=12,val=12,unbiased=4,seed=3"
