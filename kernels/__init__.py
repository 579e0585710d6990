"""The CUDA sources, installed as package data of ``approxtopk.kernels``."""
