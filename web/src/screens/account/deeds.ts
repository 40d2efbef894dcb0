import type { AuditEvent } from '@/api/account';

/** What the actions of the audit log are, in words that follow a name: "Ada changed the password". */
const DEEDS: Readonly<Record<string, string>> = {
  'access_token.create': 'Made an access token',
  'access_token.revoke': 'Revoked an access token',
  'account.change_password': 'Changed the password',
  'account.login': 'Signed in',
  'account.logout_all': 'Signed out everywhere',
  'account.refresh': 'Renewed a sign-in',
  'account.register': 'Made the account',
  'account.reset_password': 'Set a new password by a link',
  'account.verify': 'Confirmed the e-mail address',
  'agent.create': 'Made an agent',
  'agent.credential.read': 'Read an agent’s credential',
  'agent.credential.refresh': 'Renewed an agent’s login',
  'agent.delete': 'Deleted an agent',
  'agent.update': 'Changed an agent',
  'approval.allow': 'Allowed what an agent asked for',
  'approval.deny': 'Denied what an agent asked for',
  'coolify.connect': 'Connected Coolify',
  'coolify.disconnect': 'Disconnected Coolify',
  'coolify.hook': 'Made an address for Coolify’s messages',
  'coolify.hook_delete': 'Removed the address for Coolify’s messages',
  'deployment.cancel': 'Cancelled a deployment',
  'deployment.rollback': 'Went back to an earlier deployment',
  'deployment.start': 'Started a deployment',
  'disk.reclaimed': 'Freed disk space',
  'environment.create': 'Made an environment',
  'environment.delete': 'Deleted an environment',
  'environment.push_policy': 'Changed what may be pushed',
  'environment.idle_stop': 'Changed when an environment is stopped',
  'environment.rename': 'Renamed an environment',
  'environment.repair': 'Repaired a repository',
  'environment.stop': 'Stopped an environment',
  'git.commit': 'Committed',
  'git.push': 'Pushed',
  'git.push_requested': 'Asked for a push',
  'git.push_started': 'Began a push',
  'git_host.delete': 'Removed a git host',
  'git_host.put': 'Saved a git host',
  'github.connect': 'Connected GitHub',
  'github.disconnect': 'Disconnected GitHub',
  'github.refresh_failed': 'Lost the access to GitHub',
  'invitation.create': 'Made an invitation',
  'invitation.revoke': 'Took an invitation back',
  'keys.add': 'Made a new key for secrets',
  'keys.prune': 'Removed old keys of secrets',
  'keys.rotate': 'Put the secrets under the current key',
  'session.create': 'Started a session',
  'session.delete': 'Deleted a session',
  'session.end': 'Ended a session',
  'session.repair': 'Repaired a worktree',
  'session.revive': 'Brought a session back',
  'sign_in.end': 'Ended a sign-in',
  'terminal.attach': 'Opened a terminal',
  'terminal.detach': 'Left a terminal',
  'user.add': 'Added a user',
  'user.disable': 'Disabled a user',
  'user.enable': 'Enabled a user',
  'user.reset_password': 'Voided a user’s password',
  'variable.delete': 'Deleted a variable',
  'variable.set': 'Set a variable',
};

/** What can be filtered by: all actions before the dot. */
export const DOMAINS: Readonly<Record<string, string>> = {
  account: 'Signing in and passwords',
  sign_in: 'Ended sign-ins',
  access_token: 'Access tokens',
  user: 'Users',
  invitation: 'Invitations',
  environment: 'Environments',
  disk: 'Disk space',
  session: 'Sessions',
  terminal: 'Terminals',
  git: 'Commits and pushes',
  git_host: 'Git hosts',
  github: 'GitHub',
  coolify: 'Coolify',
  deployment: 'Deployments',
  variable: 'Variables',
  agent: 'Agents',
  approval: 'Approvals',
  keys: 'Keys of secrets',
};

/** Named first in what an event is about, since they say most. */
const TELLING = ['name', 'email', 'branch', 'ref', 'origin', 'host', 'login', 'from', 'address'];
const SHOWN_CHARACTERS = 80;

/** What was done, in words; an action that is not known by a newer server's name. Pure. */
export function deed(action: string): string {
  const known = DEEDS[action];
  if (known !== undefined) return known;
  const words = action.replaceAll(/[._]+/gu, ' ').trim();
  return words === '' ? 'Did something' : words.charAt(0).toUpperCase() + words.slice(1);
}

function plain(value: unknown): string | undefined {
  if (typeof value === 'string') return value;
  return typeof value === 'number' || typeof value === 'boolean' ? String(value) : undefined;
}

/** What it was done to, in a few words; nothing where the event does not say. Pure. */
export function about({ details }: Pick<AuditEvent, 'details'>): string | undefined {
  const { from, to } = details;
  if (typeof from === 'string' && typeof to === 'string') return short(`${from} → ${to}`);
  for (const name of TELLING) {
    const value = plain(details[name]);
    if (value !== undefined && value !== '') return short(name === 'address' ? `from ${value}` : value);
  }
  return undefined;
}

function short(text: string): string {
  return text.length > SHOWN_CHARACTERS ? `${text.slice(0, SHOWN_CHARACTERS)}…` : text;
}

/** All that an event says besides, by name. Pure. */
export function facts(event: AuditEvent): [string, string][] {
  return [
    ['Number', String(event.seq)],
    ['Action', event.action],
    ...(event.objectId === null ? [] : [[event.objectType, event.objectId] as [string, string]]),
    ...(event.requestId === null ? [] : [['Request', event.requestId] as [string, string]]),
    ...Object.entries(event.details).map(([name, value]): [string, string] => [
      name,
      plain(value) ?? JSON.stringify(value),
    ]),
  ];
}
