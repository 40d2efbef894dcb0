/** A repository's short form for lists: `owner/name`, or host and path for less known places. Pure. */
export function repositoryLabel(url: string): string {
  try {
    const { host, pathname } = new URL(url);
    const path = pathname.replace(/^\/+|\/+$|\.git\/*$/gu, '');
    return ['github.com', 'gitlab.com', 'bitbucket.org', 'codeberg.org'].includes(host)
      ? path
      : `${host}/${path}`;
  } catch {
    return url;
  }
}

/** The name to offer for a repository's environment: its last part. Empty while there is none. Pure. */
export function nameFromUrl(url: string): string {
  const path = url
    .trim()
    .replace(/[?#].*$/u, '')
    .replace(/\/+$/u, '')
    .replace(/\.git$/u, '');
  const web = /^https?:\/\/[^/]+\/.*?([^/]+)$/iu.exec(path);
  const ssh = path.includes('://') ? null : /^[^/\s:]+:(?:.*\/)?([^/]+)$/u.exec(path);
  return (web?.[1] ?? ssh?.[1] ?? '').slice(0, 64);
}

/** What is plainly wrong with a name, before the server is asked. Pure. */
export function nameProblem(name: string): string | undefined {
  if (name.trim() === '') return 'Give it a name.';
  if (name !== name.trim()) return 'A name does not begin or end with a space.';
  if (Array.from(name).length > 64) return 'A name has at most 64 characters.';
  return undefined;
}

/** What is plainly wrong with a repository's address, before the server is asked. Pure. */
export function urlProblem(url: string): string | undefined {
  const text = url.trim();
  if (text === '') return 'Give the address of a repository, or choose Empty.';
  if (/\s/u.test(text)) return 'An address has no spaces.';
  if (/^https?:\/\/[^/@]+@/iu.test(text)) {
    return 'Leave the user name and password out; credentials for git hosts are kept in the settings.';
  }
  const looksRight =
    /^https?:\/\/[^/]+\/.+/iu.test(text) || /^(?:ssh:\/\/)?(?:[\w.-]+@)?[\w.-]+[:/].+/u.test(text);
  return looksRight ? undefined : 'An address looks like https://github.com/owner/name.';
}
