"""The 26 styles of the conditional network, in its order.

The network came without names. These describe what the styles were seen to do to two photographs
(a portrait and a still life) and claim nothing about the pictures they were learned from.
"""

from __future__ import annotations

PRESETS: tuple[tuple[str, str], ...] = (
    ("pastel-amber-sky", "Soft pastel strokes in amber and sky blue."),
    ("ink-bars-yellow", "Thick black ink lines on off-white with flat yellow areas."),
    ("charcoal-peach", "Dark charcoal shadows on pale grey-blue, with a touch of peach."),
    ("vivid-shards", "Glowing shards of blue, red and orange on black; details are lost."),
    ("wine-gold", "Wine red, gold and pale blue with fine hatching."),
    ("autumn-brush", "Rough brush strokes in orange, brick red and grey-blue."),
    ("indigo-dots", "Dark indigo in one tone, strewn with small dark dots."),
    ("primary-blocks", "Smooth blocks of yellow, blue and red that sink into black."),
    ("wash-cyan-magenta", "White paper with thin washes of cyan, magenta and yellow."),
    ("stipple-teal-crimson", "Broken pale stippling over teal and crimson, like a block print."),
    ("rust-hatching", "Rust brown and near-black with coarse hatching."),
    ("ochre-etching", "Etched dark lines over ochre and pale grey."),
    ("pastel-lavender-gold", "Blurred pastel in lavender and gold."),
    ("lime-teal-relief", "Lime green, teal and dark red with raised dark contours."),
    ("pale-aqua", "Pale blue-green with a hint of blush; very low contrast."),
    ("mosaic-pastel", "Small pastel tiles with thin dark joints."),
    ("crayon-blue-orange", "Slanted crayon strokes in blue, violet, orange and olive."),
    ("woven-red", "A woven grid of red, orange and blue; the picture nearly disappears."),
    ("sandstone-relief", "Sand and brown, as if carved into stone."),
    ("blue-yellow-strokes", "Short dense strokes of deep blue and bright yellow."),
    ("crimson-dark", "Deep red and black with a few blue glints."),
    ("outline-candy", "Thick black outlines around flat pink, cream and light blue."),
    ("slate-red-accents", "Slate blue and cream with heavy dark lines and small red accents."),
    ("dusk-soft", "Soft dusky tones: green-black shadows under a pale blue sky."),
    ("print-navy-cream", "Navy lines and light teal on cream, like an old colour print."),
    ("rough-umber-blue", "Rough, crusted texture in umber, slate blue and ochre."),
)
