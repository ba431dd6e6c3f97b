"""The page of nezha-convert: a Gradio app over the public Python API.

From top to bottom; imports go down only:

- `screen.py`: what a visitor sees, and what each button does; the only file that imports gradio;
- `views.py`: results as HTML, in which nothing that a stranger wrote is markup;
- `jobs.py`: a child process that works for one visitor, within limits, and is killed when it is to stop;
- `work.py`: what runs in that process; the only file that imports nezha_convert;
- `visitors.py`: each visitor's private folder, from the first file to its deletion;
- `questions.py`: what a refusal asks, and the arguments of an answer;
- `words.py`: the page's words in English and Chinese; `limits.py`: the numbers.
"""
