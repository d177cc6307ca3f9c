"""What a picture can be written as; also how the file's name ends."""

SVG, PNG = "svg", "png"
FORMATS = (SVG, PNG)
