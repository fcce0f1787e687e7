"""Refuses images that claim more pixels than engines take. Pure."""

from collections.abc import Iterable

from stream_core.errors import InvalidRequest
from stream_gateway.fetching.links import Link
from stream_gateway.fetching.pictures import Gauge, HeadersTooLongError, decoded


class ImageTooLarge(InvalidRequest):
    """It would be unpacked to more than anybody takes."""

    code = "image_too_large"


def demand_pixels(pictures: Iterable[Link], most: int) -> None:
    """Look at the headers of a request's images.

    Args:
        pictures: with data: URLs.
        most: pixels of one.

    Raises:
        ImageTooLarge: naming the first, its size and the limit; or their headers have no end.
    """
    gauge = Gauge()
    for picture in pictures:
        try:
            found = gauge.pixels_of(decoded(picture.url))
        except HeadersTooLongError:
            words = f"{picture.place}: the headers of the request's images have more parts than are looked at"
            raise ImageTooLarge(words, param=picture.place) from None
        if found is not None and found[0] * found[1] > most:
            width, height = found
            words = f"{picture.place}: the image is {width:,} x {height:,}: {width * height:,} pixels, at most {most:,}"
            raise ImageTooLarge(f"{words} are allowed", param=picture.place)
