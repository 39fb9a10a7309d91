"""A Ray cluster of several hosts on one machine: `make test-cluster`.

Each host is a set of Linux namespaces with a root file system, a network interface and an sshd.
The whole network lives inside namespaces of its own, which the kernel removes, with every process
in them, when the harness ends for whatever reason.
"""
