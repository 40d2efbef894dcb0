import {
  FolderGit2,
  Keyboard,
  KeyRound,
  MonitorSmartphone,
  Palette,
  Server,
  UserRound,
  type LucideIcon,
} from 'lucide-react';
import { useEffect, useRef, type ReactNode } from 'react';
import { NavLink, useLocation } from 'react-router';
import { Page } from '@/app/page';

export type SettingsPart = { path: string; title: string; icon: LucideIcon };

export const SETTINGS: readonly SettingsPart[] = [
  { path: 'account', title: 'Account', icon: UserRound },
  { path: 'sign-ins', title: 'Sign-ins', icon: MonitorSmartphone },
  { path: 'appearance', title: 'Appearance', icon: Palette },
  { path: 'keys', title: 'Keys', icon: Keyboard },
  { path: 'github', title: 'GitHub', icon: FolderGit2 },
  { path: 'hosts', title: 'Git hosts', icon: Server },
  { path: 'variables', title: 'Variables', icon: KeyRound },
];

/** One part of the settings, with the way to the others beside it. */
export function SettingsPage({
  title,
  lead,
  actions,
  children,
}: {
  title: string;
  /** What it is about, in a sentence. */
  lead?: ReactNode;
  actions?: ReactNode;
  children: ReactNode;
}) {
  return (
    <Page title={title} crumbs={[{ label: 'Settings', to: '/settings' }]} actions={actions}>
      <div className="flex flex-col gap-6 md:flex-row md:gap-10">
        <SettingsNav />
        <div className="max-w-3xl min-w-0 flex-1">
          {lead !== undefined && <p className="mb-6 max-w-2xl text-base text-fg-2">{lead}</p>}
          {children}
        </div>
      </div>
    </Page>
  );
}

function SettingsNav() {
  const list = useRef<HTMLUListElement>(null);
  const { pathname } = useLocation();
  useEffect(() => {
    // On a phone the row is wider than the screen: the part that is shown comes into view.
    list.current
      ?.querySelector('[aria-current=page]')
      ?.scrollIntoView({ block: 'nearest', inline: 'center' });
  }, [pathname]);
  return (
    <nav aria-label="Settings" className="shrink-0 max-md:-mx-4 max-md:overflow-x-auto max-md:px-4 md:w-44">
      <ul ref={list} className="flex gap-1 md:flex-col">
        {SETTINGS.map(({ path, title, icon: Icon }) => (
          <li key={path} className="shrink-0">
            <NavLink
              to={`/settings/${path}`}
              className="flex h-8 items-center gap-2 rounded-md px-2.5 text-sm whitespace-nowrap text-fg-2 hover:bg-hover hover:text-fg focus-inset aria-[current=page]:bg-active aria-[current=page]:font-medium aria-[current=page]:text-fg pointer-coarse:h-11"
            >
              <Icon aria-hidden className="size-4 shrink-0" />
              {title}
            </NavLink>
          </li>
        ))}
      </ul>
    </nav>
  );
}
