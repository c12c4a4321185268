"""Pages about what was made: of a run, of two runs side by side, of nights over time.

run_page.py    the page of a run, in the store or as a copy   run_data.py    its data   thumbnails.py  its pictures
comparison.py  the same pairs in two runs                     comparison_page.py  its tables and page
crossed.py     how sure a mean difference is, where contents and styles are crossed
trends.py      yield, scores, cost and faults a night; drift  trends_page.py      its table and page
html.py        templates, scripts and data of all pages       charts.py      small SVG  page/  the files themselves
"""
