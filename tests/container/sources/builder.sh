#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Builds each source in /in/sources as this environment's user; leaves the packages in /out.
# Environment: NAME (the user), FOLDER, UMASK, ORDER (an option of sort), FAKE (variables for env).
set -eu
echo "$NAME:x:1000:1000::/home/$NAME:/bin/sh" >>/etc/passwd
echo "$NAME:x:1000:" >>/etc/group
mkdir -p "/home/$NAME" "$FOLDER" /out
cd /in/sources
find . -mindepth 1 | sort "$ORDER" | tar --create --no-recursion --files-from=- |
    tar --extract --directory="$FOLDER"
# shellcheck disable=SC2086 # several variables
find "$FOLDER" -exec touch --date="@$(env $FAKE date +%s)" {} + # the day of the checkout
find "$FOLDER" -type f -exec grep -q '^#!' {} \; -exec chmod 755 {} +
chown -R 1000:1000 "/home/$NAME" "$FOLDER"
chmod 755 "$FOLDER"
umask "$UMASK"
for group in "$FOLDER"/*; do
    for source in "$group"/*; do
        cd "$source"
        # shellcheck disable=SC2086 # several variables
        setpriv --reuid=1000 --regid=1000 --clear-groups env HOME="/home/$NAME" USER="$NAME" $FAKE \
            DEB_BUILD_OPTIONS=noautodbgsym dpkg-buildpackage --build=binary --no-sign
    done
    for package in "$group"/*.deb; do
        made=${package##*/}
        cp "$package" "/out/${group##*/}-${made%%_*}.deb"
    done
done
