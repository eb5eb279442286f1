"""Feature maps of the convolutions for square images of any size; at 64 they are Dreamer's."""

KERNEL = 4  # of the encoder


def encoder_sides(size: int) -> list[int]:
    """Return the side of each layer's feature map: stride 2, until the kernel no longer fits.

    64 -> 31, 14, 6, 2.
    """
    sides = []
    while size >= KERNEL:
        size = (size - KERNEL) // 2 + 1
        sides.append(size)
    return sides


def decoder_kernels(size: int) -> list[int]:
    """Return the kernels of the transposed convolutions that lead from one pixel to the image.

    A map of even side comes from a kernel of 6, one of odd side from 5, and one no larger than a
    kernel from one pixel: 1 -> 5 -> 13 -> 30 -> 64 by kernels 5, 5, 6, 6.
    """
    kernels: list[int] = []
    while size > 1:
        kernels.insert(0, min(size, 6 - size % 2))
        size = (size - kernels[0]) // 2 + 1
    return kernels
