import {
  Activity,
  Bell,
  Bot,
  FolderGit2,
  HardDrive,
  HeartPulse,
  Keyboard,
  KeyRound,
  KeySquare,
  LockKeyhole,
  MailPlus,
  MonitorSmartphone,
  Palette,
  Rocket,
  ScrollText,
  Server,
  UserRound,
  UsersRound,
  type LucideIcon,
} from 'lucide-react';
import { useNavigate } from 'react-router';
import { useIsAdmin } from '@/api/queries';
import type { Command } from '@/app/commands';

export type SettingsPart = {
  path: string;
  /** Where it is, when not below the settings. */
  at?: string;
  title: string;
  icon: LucideIcon;
  /** More words by which the palette finds it. */
  words?: string;
};

export const SETTINGS: readonly SettingsPart[] = [
  { path: 'account', title: 'Account', icon: UserRound, words: 'e-mail address name verify' },
  { path: 'password', title: 'Password', icon: LockKeyhole, words: 'change' },
  {
    path: 'sign-ins',
    title: 'Sign-ins',
    icon: MonitorSmartphone,
    words: 'devices browsers sign out everywhere',
  },
  { path: 'tokens', title: 'Access tokens', icon: KeySquare, words: 'api scripts programs cli' },
  { path: 'activity', title: 'Activity', icon: Activity, words: 'audit log history' },
  { path: 'appearance', title: 'Appearance', icon: Palette, words: 'theme dark light contrast font' },
  { path: 'notifications', title: 'Notifications', icon: Bell, words: 'desktop browser alerts' },
  { path: 'keys', title: 'Keys', icon: Keyboard, words: 'keyboard shortcuts bindings' },
  {
    path: 'agents',
    at: '/agents',
    title: 'Agents',
    icon: Bot,
    words: 'claude codex gemini qwen opencode cursor ai model api key login',
  },
  { path: 'github', title: 'GitHub', icon: FolderGit2, words: 'connect repositories' },
  { path: 'hosts', title: 'Git hosts', icon: Server, words: 'gitlab forgejo credentials' },
  { path: 'coolify', title: 'Deployments', icon: Rocket, words: 'coolify deploy webhook token roll back' },
  { path: 'variables', title: 'Variables', icon: KeyRound, words: 'secrets environment' },
  {
    path: 'health',
    title: 'Health',
    icon: HeartPulse,
    words: 'server status runtime isolation checks doctor',
  },
];

/** Only for who administers the server. */
export const ADMINISTRATION: readonly SettingsPart[] = [
  { path: 'users', title: 'Users', icon: UsersRound, words: 'admin accounts people disable reset password' },
  { path: 'invitations', title: 'Invitations', icon: MailPlus, words: 'admin invite people' },
  { path: 'audit', title: 'Audit log', icon: ScrollText, words: 'admin export chain history' },
  { path: 'disk', title: 'Disk use', icon: HardDrive, words: 'admin space quota storage full' },
];

/** The address of a part. Pure. */
export function addressOf({ path, at }: Pick<SettingsPart, 'path' | 'at'>): string {
  return at ?? `/settings/${path}`;
}

function commandsOf(parts: readonly SettingsPart[], group: string, go: (path: string) => void): Command[] {
  return parts.map(({ path, at, title, icon, words }) => ({
    id: `settings.${path}`,
    title,
    group,
    icon,
    keywords: `settings ${words ?? ''}`,
    run: () => go(addressOf(at === undefined ? { path } : { path, at })),
  }));
}

/** A command for each part of the settings that the signed-in person has. */
export function useSettingsCommands(): Command[] {
  const navigate = useNavigate();
  const isAdmin = useIsAdmin();
  const go = (path: string) => void navigate(path);
  return [
    ...commandsOf(SETTINGS, 'Settings', go),
    ...(isAdmin ? commandsOf(ADMINISTRATION, 'Administration', go) : []),
  ];
}
