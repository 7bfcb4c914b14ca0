"""Lab hosts: machines with their own kernel (QEMU), or containers (Podman), made from one image.

The demo, molecule and the benchmarks all get their hosts here. Only the standard library is used, so that
`python3 -m lab` runs on a fresh Debian or Ubuntu machine.
"""
