# %% [markdown]
# # Three hospitals
#
# Three hospitals fit one regression over the patients of all. The rows stay where they are; sums over rows are merged, masked,
# so that nobody sees the numbers of one hospital.
#
# It needs `pip install '.[federation]'` and a broker, Debian's `nats-server`. Each hospital would run `pet federation serve` on
# a machine of its own ({doc}`/federation`); here one server has all three as users, so that one page has all sides.

# %%
import contextlib
import re
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from pet.federation import Client, Feature, Kind, Schema

stack = contextlib.ExitStack()
folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))


def start(command, text):
    """Start a server, and return what it says when it listens."""
    log = folder / f"{len(list(folder.glob('*.log')))}.log"
    with log.open("wb") as file:
        process = subprocess.Popen(command, cwd=folder, stdout=file, stderr=file)
    stack.callback(process.wait)
    stack.callback(process.terminate)
    deadline = time.monotonic() + 60
    while not (found := re.search(text, log.read_text())):
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
    return found


with socket.create_server(("127.0.0.1", 0)) as free:
    port = free.getsockname()[1]
password = secrets.token_hex(16)
(folder / "nats.conf").write_text(f"""
listen: 127.0.0.1:{port}
jetstream {{ store_dir: jetstream }}
authorization {{ user: federation, password: p{password} }}
""")
start(["nats-server", "-c", "nats.conf"], "Server is ready")
pet = [sys.executable, "-m", "pet", "federation"]
for name in ("anna", "bert", "cleo"):
    subprocess.run([*pet, "user", "add", name, "--users", "users.json"], cwd=folder, check=True, capture_output=True)
url = start([*pet, "serve", "--bind", "127.0.0.1:0", "--users", "users.json"], r"Listening on (\S+)")[1]
anna, bert, cleo = (stack.enter_context(Client.from_key_file(url, folder / f"{name}.key")) for name in ("anna", "bert", "cleo"))

# %% [markdown]
# **The rows.** Blood pressure depends on age and on smoking; Cleo's hospital is small.

# %%
generator = np.random.default_rng(7)


def some_rows(count):
    age, smoker = generator.uniform(20, 80, count), generator.random(count) < 0.3
    return {"age": age, "smoker": smoker * 1.0, "pressure": 90 + 0.6 * age + 8 * smoker + generator.normal(0, 5, count)}


tables = [some_rows(count) for count in (60, 200, 35)]

# %% [markdown]
# **The schema** is agreed in public: which features there are, and roughly where they lie.

# %%
schema = Schema(
    (
        Feature(name="age", centre=50, scale=20),
        Feature(name="smoker", kind=Kind.BINARY),
        Feature(name="pressure", centre=125, scale=20),
    )
)
anna.create(
    "hospital",
    "Hospitals",
    nats_hosts=f"nats://127.0.0.1:{port}",
    nats_sec_user="federation",
    nats_sec_passwd=f"p{password}",
    sync_sched="h1",
    fed_schema=schema.to_json(),
    fed_peer_name="anna",
)

# %% [markdown]
# **Invitations** work once. The invitation and its password go by two different channels.

# %%
for client, project, name in ((bert, "clinic", "bert"), (cleo, "practice", "cleo")):
    invitation, password_of_it = anna.invite("hospital")
    client.join(project, invitation, password_of_it, fed_peer_name=name)

# %% [markdown]
# **Who are the others?** The list of members comes through Anna's server, which could have invented them. Each user reads the
# code of the list to the others, on the telephone for example.

# %%
code = anna.members("hospital").code
for client, project in ((bert, "clinic"), (cleo, "practice")):
    client.confirm_list(project, code)
print("code of the list:", code)

# %% [markdown]
# **Learn and synchronise.** From now on they would synchronise at each full hour; here we do not wait for it.

# %%
peers = [(anna, "hospital"), (bert, "clinic"), (cleo, "practice")]
for (client, project), table in zip(peers, tables, strict=True):
    client.learn(project, table)
    client.start_pulse(project)
deadline = time.monotonic() + 120
while not any(line.startswith("Sync completed") for line in cleo.sync_log("practice")):
    assert time.monotonic() < deadline, cleo.error_log("practice")
    with contextlib.suppress(Exception):  # a second request within a minute is refused, and not needed
        cleo.sync_now("practice")
    time.sleep(0.5)

# %% [markdown]
# **The regression** of Cleo, who has 35 patients, over all 295; and over her own, for comparison.

# %%
together = cleo.linear_regression("practice", "pressure", ["age", "smoker"])
alone = cleo.linear_regression("practice", "pressure", ["age", "smoker"], local=True)
for name in ("age", "smoker"):
    print(f"{name}: alone {alone.coefficients[name]:.3f}, together {together.coefficients[name]:.3f}")

# %% [markdown]
# It is the regression of the pooled table, which nobody has.

# %%
pooled = {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}
design = np.column_stack([np.ones(295), pooled["age"], pooled["smoker"]])
intercept, age, smoker = np.linalg.lstsq(design, pooled["pressure"], rcond=None)[0]
assert together.row_count == 295
assert np.allclose([together.intercept, *together.coefficients.values()], [intercept, age, smoker], rtol=1e-9)
stack.close()
