"""A folder of videos as one page to look at.

    sources    which clips there are: videos, their records, a batch's rows
    scope      where a measure applies
    reading    what is measured on each clip
    charts     curves and bars as inline SVG
    views      what the templates are given
    write      the two pages: one folder, two folders compared

The page is one file: pictures and styles are inside, nothing is fetched, and only its own short
script runs. Texts from records and manifests are data; the template escapes them.
"""
