"""The master: policy in ``fleet``, the kernel in ``master`` and its neighbours."""
