# repository. Prints what the last repair did, and every damaged repository that is kept.
repo=$1
if [ -f "$repo/craftastic-repaired" ]; then head -c 20000 "$repo/craftastic-repaired" | sed 's/^/did /'; fi
for one in "$repo"/damaged-*; do
	if [ -d "$one" ]; then printf 'kept %s\n' "$one"; fi
done
