"""The JSON Schema Test Suite, as the source package of jsonschema carries it, against our grammars:
python tests/json_schema_suite.py PROGRAM, where PROGRAM is text_schema_suite.

Every schema must be enforced exactly or refused. Left out are two files: format.json, which wants
formats to be notes (here they are enforced), and vocabulary.json, which turns keywords off.
"""

import glob
import os
import subprocess
import sys
import tarfile
import tempfile

PACKAGE = "jsonschema==4.26.0"
LEFT_OUT = ("format.json", "vocabulary.json")

with tempfile.TemporaryDirectory() as folder:
    subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary",
                    ":all:", "--dest", folder, PACKAGE], check=True)
    with tarfile.open(glob.glob(folder + "/*.tar.gz")[0]) as archive:
        archive.extractall(folder, filter="data")
    files = sorted(glob.glob(folder + "/*/json/tests/draft2020-12/*.json"))
    assert len(files) > 40, "the package no longer carries the suite"
    chosen = [name for name in files if os.path.basename(name) not in LEFT_OUT]
    sys.exit(subprocess.run([sys.argv[1]] + chosen).returncode)
