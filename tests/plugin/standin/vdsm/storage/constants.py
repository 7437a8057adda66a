# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later
STORAGE = "00_storage"
IMAGE_NAMESPACE = "01_img"
REPO_DATA_CENTER = "/rhev/data-center"
