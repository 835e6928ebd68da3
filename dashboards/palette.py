"""Colours that stay apart for every kind of colour vision (Okabe and Ito, 2008, "Color Universal Design").

All of them keep a contrast of 3:1 or more on both the light and the dark page, because a figure is
drawn once and the page may turn dark afterwards. Text and grid lines take their colour from the style sheet.
"""

BLUE = "#0072B2"
SKY = "#56B4E9"
"""In the place of blue on a dark page, where blue is dim."""
VERMILLION = "#D55E00"
GREEN = "#009E73"
PURPLE = "#CC79A7"
GREY = "#8B929A"
"""Not of the palette: for what should stand back."""
