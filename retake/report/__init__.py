"""The pages that a person opens: of one edit, of a gallery of many, of an evaluation.

layers.py           one frame's views: mask overlay, flow colours, tracks, and the mosaic that holds them
contact_sheet.py    a contact sheet, collected from the same stream
edit_page.py        the page of one edit around one proxy video (page.html, page.css, page.js)
metric_rows.py      its table of metrics
notes.py            notes on results, by weight
gallery_page.py     many edits to filter and sort (gallery.html, gallery.css, gallery.js)
interpretation_page.py  what moves as a point does, with charts.py
evaluation_page.py  the table of an evaluation, with the intervals of intervals.py
"""

import base64
import hashlib


def csp_hash(text: str) -> str:
    """The hash of an inline script or style for the page's content security policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
