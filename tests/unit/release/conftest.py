# SPDX-License-Identifier: GPL-3.0-or-later
"""The fixtures of releases."""

from tests.releases import (
    caller as caller,
)
from tests.releases import (
    environment_keys as environment_keys,
)
from tests.releases import (
    expired_key as expired_key,
)
from tests.releases import (
    farm as farm,
)
from tests.releases import (
    farm_with as farm_with,
)
from tests.releases import (
    gpg_home as gpg_home,
)
from tests.releases import (
    keyring_file as keyring_file,
)
from tests.releases import (
    listing as listing,
)
from tests.releases import (
    make_run as make_run,
)
from tests.releases import (
    other_key as other_key,
)
from tests.releases import (
    published as published,
)
from tests.releases import (
    release_key as release_key,
)
from tests.releases import (
    revoked_key as revoked_key,
)
from tests.releases import (
    serve as serve,
)
