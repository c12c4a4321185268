"""Three users' first hours, typed into a real terminal and compared with what they are to read.

`python -m tests.journeys` runs them and writes what was read into golden/, to be looked at before it is committed.

What of the first hour is held where (point: its name in the transcripts is a line that begins with #):

artist      a folder of photos: init, refusals by the line, every fault at once, the base that nobody named, the device,
            estimates before and after, a run's first and last lines, scores, a typing error, Ctrl-C, rerun, export, the
            page and its decisions
operator    a bucket: doctor, a device and a base that are not there, deploy twice, the form, the inbox with what is no
            manifest, nights, status, a mistyped place
researcher  a table: presets, settings, bounds, the published recipe on SDXL, filters and what they do not find, what
            scores mean, two settings side by side, probe and bench

terminal.py  a pty and what a person reads on it      transcript.py  what is typed and read; masks
"""
