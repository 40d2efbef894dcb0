import { useEffect, useRef, type ReactNode } from 'react';
import { NavLink, useLocation } from 'react-router';
import { useIsAdmin } from '@/api/queries';
import { Page, type Crumb } from '@/app/page';
import { ADMINISTRATION, addressOf, SETTINGS, type SettingsPart } from './parts';

/** One part of the settings, with the way to the others beside it. */
export function SettingsPage({
  title,
  lead,
  crumbs = [],
  actions,
  children,
}: {
  title: string;
  /** What it is about, in a sentence. */
  lead?: ReactNode;
  /** What stands between the settings and this. */
  crumbs?: readonly Crumb[];
  actions?: ReactNode;
  children: ReactNode;
}) {
  return (
    <Page title={title} crumbs={[{ label: 'Settings', to: '/settings' }, ...crumbs]} actions={actions}>
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
  const row = useRef<HTMLElement>(null);
  const { pathname } = useLocation();
  const isAdmin = useIsAdmin();
  useEffect(() => {
    // On a phone the row is wider than the screen: the part that is shown comes into view.
    row.current?.querySelector('[aria-current=page]')?.scrollIntoView({ block: 'nearest', inline: 'center' });
  }, [pathname, isAdmin]);
  return (
    <nav
      ref={row}
      aria-label="Settings"
      className="flex shrink-0 gap-1 max-md:-mx-4 max-md:overflow-x-auto max-md:px-4 md:w-44 md:flex-col"
    >
      <Parts parts={SETTINGS} />
      {isAdmin && (
        <>
          <h2 className="px-2.5 pt-5 pb-1 text-xs font-medium text-fg-3 max-md:sr-only">Administration</h2>
          <Parts parts={ADMINISTRATION} />
        </>
      )}
    </nav>
  );
}

function Parts({ parts }: { parts: readonly SettingsPart[] }) {
  return (
    <ul className="flex gap-1 md:flex-col">
      {parts.map(({ icon: Icon, title, ...part }) => (
        <li key={part.path} className="shrink-0">
          <NavLink
            to={addressOf(part)}
            className="flex h-8 items-center gap-2 rounded-md px-2.5 text-sm whitespace-nowrap text-fg-2 hover:bg-hover hover:text-fg focus-inset aria-[current=page]:bg-active aria-[current=page]:font-medium aria-[current=page]:text-fg pointer-coarse:h-11"
          >
            <Icon aria-hidden className="size-4 shrink-0" />
            {title}
          </NavLink>
        </li>
      ))}
    </ul>
  );
}
