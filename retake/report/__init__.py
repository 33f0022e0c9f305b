"""The page a person opens after an edit: `page.build` writes it, `layers` draws what it shows.

layers.py   one frame's views: mask overlay, flow colours, tracks, and the mosaic that holds them
sheet.py    a contact sheet, collected from the same stream
page.py     the offline HTML page around one proxy video (page.html, page.css, page.js)
"""
